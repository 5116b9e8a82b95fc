"""Points as CSV files, and the picture of each sequence's."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.evaluation.curves.lifelong import LIFELONG
from orchestrator.evaluation.curves.stability import STABILITY
from orchestrator.report.curves.results import POINT_FIELDS, points_in
from orchestrator.report.plots import score_curves

# What a summary has in further columns where a sequence has it
_FURTHER = {
    "wf": [*STABILITY, "window", "seconds_of_looks"],
    "lifelong_beside": [*LIFELONG, "lifelong_beside"],
    "fuar": ["fuar"],
}


def further_columns(sequences: Sequence[dict[str, Any]]) -> list[str]:
    """The columns of a summary for what not every experiment asks for."""
    columns = []
    for name, names in _FURTHER.items():
        if any(name in sequence for sequence in sequences):
            columns += names
    return columns


def write_points(folder: Path, sequence: dict[str, Any]) -> None:
    """Write `points-<sequence>.csv`, with a row for each score amid training, and `points-<sequence>.png`, a line a task.

    Of a sequence without points, nothing.
    """
    points = points_in(sequence)
    if not points:
        return
    tasks = sequence["tasks"]
    with (folder / f"points-{sequence['id']}.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["task", "step", "scored_task", *POINT_FIELDS[3:]])
        for task_id, step, scored_id, *others in sequence["points"]:
            writer.writerow([tasks[task_id], step, tasks[scored_id], *others])
    title = "{method}, {stream}, seed {seed}".format(**sequence)
    unit = sequence.get("unit") or "in the unit of its scorer"
    with (folder / f"points-{sequence['id']}.png").open("wb") as stream:
        score_curves(points, tasks, unit, title).savefig(stream, dpi=150)
