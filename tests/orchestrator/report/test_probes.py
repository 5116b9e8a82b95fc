"""The table and the file of benchmarks of base abilities."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.report.probes import print_probes, probe_results, write_probes
from orchestrator.store.view import View
from tests.orchestrator.store.examples import probe, started


def result(method: str, seed: int, scores: list[float]) -> dict[str, Any]:
    """A sequence of two tasks whose states got those scores."""
    view = View("s")
    view.add(started("law", "news"))
    for tasks_seen, score in enumerate(scores):
        view.add(probe(tasks_seen, "films", score))
    sequence = {"method": method, "stream": "papers", "seed": seed, "tasks": ["law", "news"]}
    return {**sequence, "probes": probe_results(view)}


def test_a_line_has_the_means_before_and_after_and_of_the_changes() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    results = [result("ft", 1, [60.0, 9.0, 40.0]), result("ft", 2, [60.0, 8.0, 50.0]), result("migu", 1, [60.0, 50.0])]
    print_probes(results, console)
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["ft", "films", "acc", "60.0", "±", "0.0", "45.0", "±", "7.1", "-15.0", "±", "7.1"] in lines
    # of a sequence that is not through there is no line
    assert not [line for line in lines if "migu" in line]


def test_without_benchmarks_nothing_is_printed_or_written(tmp_path: Path) -> None:
    console = Console(record=True, file=io.StringIO())
    print_probes([result("ft", 1, [])], console)
    write_probes(tmp_path / "probes.csv", [result("ft", 1, [])])
    assert console.export_text() == "" and not (tmp_path / "probes.csv").exists()


def test_the_file_has_a_row_for_each_state(tmp_path: Path) -> None:
    write_probes(tmp_path / "probes.csv", [result("ft", 1, [60.0, 50.0]), result("ft", 2, [60.0])])
    with (tmp_path / "probes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["seed"], row["after"], row["score"]) for row in rows] == [
        ("1", "(before training)", "60.0"),
        ("1", "law", "50.0"),
        ("2", "(before training)", "60.0"),
    ]
