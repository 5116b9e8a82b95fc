"""The CSV files of an experiment."""

from __future__ import annotations

import csv
import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from orchestrator.evaluation.metrics import METRICS
from orchestrator.report.csv_files import write_csv, write_csv_or_say
from tests.orchestrator.report.examples import mixed_result_of, result_of


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as stream:
        return list(csv.reader(stream))


def test_a_summary_and_a_matrix_for_each_sequence(tmp_path: Path) -> None:
    sequences = [result_of(), result_of(id="other", method="a, b", aa=None)]
    path = write_csv(cast(Any, SimpleNamespace(folder=tmp_path)), {"sequences": sequences})
    heading, first, second = rows_of(path)
    assert heading[:3] == ["method", "stream", "seed"]
    assert set(METRICS) < set(heading)
    assert dict(zip(heading, first, strict=True))["forgetting"] == "20.0"
    assert dict(zip(heading, second, strict=True))["method"] == "a, b"
    assert dict(zip(heading, second, strict=True))["aa"] == ""
    assert heading[-3:] == ["status", "runs_finished", "runs_planned"]
    assert first[-3:] == ["finished", "1", "1"]
    assert rows_of(tmp_path / "matrix-ft-news-s1-abc.csv") == [
        ["after", "sport", "law"],
        ["(before training)", "10.0", "20.0"],
        ["sport", "80.0", "25.0"],
        ["law", "60.0", "90.0"],
    ]
    assert (tmp_path / "matrix-other.csv").exists()


def test_scores_that_were_not_asked_for_are_empty(tmp_path: Path) -> None:
    result = result_of(rows="seen", fwt=None, accuracy_matrix=[[None, None], [80.0, None], [60.0, 90.0]])
    summary = rows_of(write_csv(cast(Any, SimpleNamespace(folder=tmp_path)), {"sequences": [result]}))
    assert dict(zip(*summary, strict=True))["fwt"] == ""
    matrix = rows_of(tmp_path / "matrix-ft-news-s1-abc.csv")
    assert matrix[1:] == [["(before training)", "", ""], ["sport", "80.0", ""], ["law", "60.0", "90.0"]]


def test_a_stream_of_several_scorers_has_a_row_for_each(tmp_path: Path) -> None:
    folder = cast(Any, SimpleNamespace(folder=tmp_path))
    summary = rows_of(write_csv(folder, {"sequences": [result_of(unit="%")]}))
    assert dict(zip(*summary, strict=True))["unit"] == "%"
    assert not (tmp_path / "summary-by-scorer.csv").exists()
    summary = rows_of(write_csv(folder, {"sequences": [mixed_result_of()]}))
    row = dict(zip(*summary, strict=True))
    assert (row["unit"], row["aa"], row["steps"]) == ("", "", "6")
    heading, *rows = rows_of(tmp_path / "summary-by-scorer.csv")
    assert heading[:7] == ["method", "stream", "seed", "scorer", "unit", "better", "tasks"]
    by_scorer = [dict(zip(heading, row, strict=True)) for row in rows]
    assert [(row["scorer"], row["tasks"], row["aa"], row["bwt"]) for row in by_scorer] == [
        ("perplexity", "sport", "60.0", "20.0"),
        ("exact-match", "law", "90.0", ""),
    ]
    assert by_scorer[0]["better"] == "lower"


def test_each_score_has_a_row_with_its_interval(tmp_path: Path) -> None:
    intervals = [[None, None], [[70.5, 90.5], [20.0, 30.0]], [None, None]]
    seen = [[None, 20.0], [80.0, 25.0], [60.0, None]]
    scorers = ["perplexity", "exact-match"]
    sequence = result_of(accuracy_matrix=seen, intervals=intervals, scorers=scorers, by_scorer=None)
    write_csv(cast(Any, SimpleNamespace(folder=tmp_path)), {"sequences": [sequence]})
    assert rows_of(tmp_path / "scores.csv")[1:] == [
        ["ft", "news", "1", "0", "law", "exact-match", "%", "higher", "20.0", "", "", "30"],
        ["ft", "news", "1", "1", "sport", "perplexity", "perplexity", "lower", "80.0", "70.5", "90.5", "10"],
        ["ft", "news", "1", "1", "law", "exact-match", "%", "higher", "25.0", "20.0", "30.0", "30"],
        ["ft", "news", "1", "2", "sport", "perplexity", "perplexity", "lower", "60.0", "", "", "10"],
    ]


def test_a_disk_that_takes_nothing_is_said_in_a_line(tmp_path: Path) -> None:
    experiment = cast(Any, SimpleNamespace(folder=tmp_path))
    assert write_csv_or_say(experiment, {"sequences": [result_of()]}) == []
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # beyond the limit a write raises what it raises on a full disk, but for the number
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        lines = write_csv_or_say(experiment, {"sequences": [result_of()]})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert lines == [f"the CSV files in {tmp_path} could not be written: File too large"]
