"""What became of a model's base abilities: its results in benchmarks, before training and after the last task."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from orchestrator.report.numbers import mean_and_deviation
from orchestrator.store.view import View

COLUMNS = ("method", "stream", "seed", "tasks_seen", "after", "probe", "metric", "score", "better", "n")
LEGEND = (
    "Beside the tasks, before training, after the last one, and the change: benchmarks of base abilities by "
    "lm-evaluation-harness, and recall of facts from the first task (memories)"
)


def probe_results(view: View) -> list[dict[str, Any]]:
    """The results of a sequence's states, state by state: see `COLUMNS`."""
    rows = []
    for (tasks_seen, probe), event in sorted(view.probes.items()):
        after = view.tasks[tasks_seen - 1] if tasks_seen else "(before training)"
        values = event.model_dump(include={"metric", "score", "better", "n"})
        rows.append({"tasks_seen": tasks_seen, "after": after, "probe": probe, **values})
    return rows


def print_probes(sequences: Sequence[dict[str, Any]], console: Console) -> None:
    """Print a line for each method of a stream and benchmark that its states have taken; nothing where there is none."""
    pairs: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
    for sequence in sequences:
        scores = {}
        for row in sequence.get("probes", []):
            scores[row["probe"], row["metric"], row["tasks_seen"]] = row["score"]
        last = len(sequence["tasks"])
        for probe, metric, tasks_seen in scores:
            # of a sequence that is not through, nothing is compared
            if tasks_seen == last and (probe, metric, 0) in scores:
                before_and_after = (scores[probe, metric, 0], scores[probe, metric, last])
                pairs[sequence["method"], probe, metric].append(before_and_after)
    if not pairs:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("method", "benchmark", "metric"):
        table.add_column(heading, no_wrap=True)
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right", no_wrap=True)
    for (method, probe, metric), values in pairs.items():
        before = [pair[0] for pair in values]
        after = [pair[1] for pair in values]
        changes = [pair[1] - pair[0] for pair in values]
        table.add_row(method, probe, metric, *map(mean_and_deviation, (before, after, changes)))
    console.print(table)
    console.print(LEGEND, style="dim", highlight=False)


def write_probes(path: Path, sequences: Sequence[dict[str, Any]]) -> None:
    """Write a row for each state and benchmark; no file where there is none."""
    rows = []
    for sequence in sequences:
        for row in sequence.get("probes", []):
            rows.append({**sequence, **row})
    if not rows:
        return
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
