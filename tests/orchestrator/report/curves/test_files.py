"""Points as a CSV file and a picture."""

from __future__ import annotations

import csv
from pathlib import Path

from orchestrator.report.curves.files import further_columns, write_points
from tests.orchestrator.report.curves.examples import looked_at
from tests.orchestrator.report.examples import result_of


def test_a_row_for_each_score_and_a_picture(tmp_path: Path) -> None:
    write_points(tmp_path, looked_at())
    with (tmp_path / "points-ft-news-s1-abc.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["task", "step", "scored_task", "score", "n", "seconds"]
    assert rows[5] == ["law", "1", "sport", "20.0", "8", "0.5"]
    assert len(rows) == 9
    assert (tmp_path / "points-ft-news-s1-abc.png").read_bytes().startswith(b"\x89PNG")


def test_of_a_sequence_without_points_nothing_is_written(tmp_path: Path) -> None:
    write_points(tmp_path, result_of())
    write_points(tmp_path, looked_at(points=[]))
    assert list(tmp_path.iterdir()) == []


def test_a_summary_has_the_columns_that_some_sequence_has() -> None:
    assert further_columns([result_of()]) == []
    assert further_columns([result_of(), looked_at()]) == [
        "min_acc", "wc_acc", "wf", "wp", "window", "seconds_of_looks",
    ]  # fmt: skip
    assert further_columns([result_of(fuar="no gain")]) == ["fuar"]
    assert further_columns([result_of(lifelong_beside="expert")])[-3:] == [
        "saturation_speed",
        "sample_efficiency",
        "lifelong_beside",
    ]
