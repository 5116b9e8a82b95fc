"""TODO orchestrator.report.csv_files"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from orchestrator.planning.experiment import Experiment
from orchestrator.report.results import USAGE_UNITS


def write_csv(experiment: Experiment, result: dict[str, Any]) -> Path:
    """`summary.csv` with a line a sequence, and `matrix-<sequence>.csv` for each accuracy matrix."""
    keys = ["method", "stream", "seed", "aa", "aa_options", "micro_aa", "bwt", "forgetting", "fwt",
            "average_incremental_accuracy", "learning_accuracy", "seconds", *USAGE_UNITS, "status"]  # fmt: skip
    summary = experiment.folder / "summary.csv"
    with summary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, keys, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(result["sequences"])
    for sequence in result["sequences"]:
        with (experiment.folder / f"matrix-{sequence['id']}.csv").open("w", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(["after", *sequence["tasks"]])
            for name, row in zip(["(before training)", *sequence["tasks"]], sequence["accuracy_matrix"], strict=True):
                rows.writerow([name, *row])
    return summary
