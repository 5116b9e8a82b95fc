"""The journal: appended facts, read back once each."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from orchestrator.store.journal import Journal, Tail
from orchestrator.store.view import fold

STARTED = {"event": "sequence_started", "tasks": ["a", "b"]}


def cell(row: int, column: int, score: float, n: int = 10) -> dict[str, object]:
    return {"event": "score", "tasks_seen": row, "task_id": column, "score": score, "score_options": None, "n": n}


def test_a_tail_gives_each_event_once_and_waits_for_whole_lines(tmp_path: Path) -> None:
    journal, tail = Journal(tmp_path), Tail(tmp_path)
    journal.append({"event": "x", "n": 1})
    assert [e["n"] for e in tail.new_events()] == [1]
    with (tmp_path / "train.jsonl").open("a") as stream:
        stream.write('{"event": "x", ')
    assert list(tail.new_events()) == []
    with (tmp_path / "train.jsonl").open("a") as stream:
        stream.write('"n": 2}\n')
    assert [e["n"] for e in tail.new_events()] == [2]


def test_a_line_torn_by_a_crash_takes_no_other_with_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append({"event": "x", "n": 1})
    with (tmp_path / "train.jsonl").open("a") as stream:
        stream.write('{"event": "x", "n": 99')
    journal.append({"event": "x", "n": 2})
    assert [e["n"] for e in Tail(tmp_path).new_events()] == [1, 2]


def test_two_writers_and_one_reader(tmp_path: Path) -> None:
    """The state comes before its score, whatever the files are called and whenever they were written."""
    Journal(tmp_path, "evaluate").append({"event": "x", "n": 2})
    Journal(tmp_path, "train").append({"event": "x", "n": 1})
    assert [e["n"] for e in Tail(tmp_path).new_events()] == [1, 2]


def test_of_two_events_on_one_fact_the_first_stands() -> None:
    step = {"event": "step", "task_id": 0, "step": 1, "loss": 1.0}
    events = [STARTED, {"event": "task_started", "task_id": 0, "steps": 3, "time": 5}, step, {**step, "loss": 2.0}]
    view = fold("s", [*events, cell(0, 0, 10.0), cell(0, 0, 20.0)])
    assert view.by_task[0].steps[1]["loss"] == 1.0
    assert view.scores[0, 0]["score"] == 10.0
    assert not view.add(step)
    assert view.add({**step, "step": 2})


def test_matrix_and_sizes() -> None:
    view = fold("s", [STARTED, cell(0, 0, 1.0, 30), cell(0, 1, 2.0, 40), cell(1, 0, 3.0, 30)])
    np.testing.assert_array_equal(view.matrix(), [[1.0, 2.0], [3.0, np.nan], [np.nan, np.nan]])
    assert view.test_sizes() == [30, 40]
    assert view.has_all_scores(0)
    assert not view.has_all_scores(1)


def test_status_follows_the_last_word() -> None:
    failed = {"event": "sequence_failed", "reason": "why", "time": 3}
    view = fold("s", [STARTED, failed])
    assert (view.status, view.failure) == ("failed", "why")
    assert view.add(STARTED)
    assert (view.status, view.failure) == ("running", "")
    assert view.add({"event": "sequence_finished", "time": 4})
    assert view.status == "finished"
