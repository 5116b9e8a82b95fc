"""The view: what follows from a sequence's events, each fact once."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from orchestrator.store.events import Measured, ScoringFailed, SequenceFailed, SequenceFinished, TaskStarted
from orchestrator.store.integrity import seal
from orchestrator.store.journal import Journal, Tail, journal_folder
from orchestrator.store.records.search_events import SearchChosen
from orchestrator.store.view import View, fold, read_view
from tests.orchestrator.store.examples import checkpoint, point, probe, score, started, step

STARTED = started("a", "b")
ALL_SCORES = [score(tasks_seen, task_id, 1.0) for tasks_seen in range(3) for task_id in range(2)]


def test_of_two_events_on_one_fact_the_first_stands() -> None:
    begun = TaskStarted(task_id=0, task="a", steps=3, reused=False, time=5)
    view = fold("s", [STARTED, begun, step(0, 1, 1.0), step(0, 1, 2.0), score(0, 0, 10.0), score(0, 0, 20.0)])
    first = view.by_task[0].last_step
    assert first
    assert first.loss == 1.0
    assert view.scores[0, 0].score == 10.0
    assert not view.add(step(0, 1))
    assert view.add(step(0, 2))
    assert view.add(checkpoint(0))
    assert not view.add(checkpoint(0))


def test_matrix_and_sizes() -> None:
    view = fold("s", [STARTED, score(0, 0, 1.0, 30), score(0, 1, 2.0, 40), score(1, 0, 3.0, 30)])
    np.testing.assert_array_equal(view.matrix(), [[1.0, 2.0], [3.0, np.nan], [np.nan, np.nan]])
    assert view.test_sizes() == [30, 40]
    assert view.has_all_scores(0)
    assert not view.has_all_scores(1)


def test_with_rows_of_seen_tasks_no_score_before_a_tasks_turn_is_missing() -> None:
    events = [score(1, 0, 1.0), score(2, 0, 1.0), score(2, 1, 1.0)]
    start = started("a", "b")
    seen = start.model_copy(update={"sequence": {"evaluation": {"rows": "seen"}}})
    assert fold("s", [seen, *events]).is_scored()
    assert not fold("s", [seen, *events[:-1]]).is_scored()
    assert fold("s", [seen, *events[:-1]]).has_all_scores(1)
    view = fold("s", [start, *events])
    assert [view.has_all_scores(tasks_seen) for tasks_seen in range(3)] == [False, False, True]
    view.add(seen)
    assert view.is_scored()
    view.add(start)
    assert not view.is_scored(), "the last start says what is asked for"


def test_a_state_that_takes_benchmarks_has_all_scores_with_these() -> None:
    """Those that the last start asked for: an earlier run may have asked for none."""
    asked = STARTED.model_copy(update={"sequence": {"probe_names": ["films", "books"]}})
    view = fold("s", [STARTED, *ALL_SCORES])
    assert view.has_all_scores(1)
    view.add(asked)
    assert not view.has_all_scores(1)
    assert view.add(probe(1, "films", 50.0)) and not view.add(probe(1, "films", 60.0))
    assert view.knows(probe(1, "films", 0.0)) and not view.knows(probe(2, "films", 0.0))
    assert view.knows(score(1, 0, 0.0)) and not view.knows(score(3, 0, 0.0))
    assert not view.has_all_scores(1)
    view.add(probe(1, "books", 50.0))
    assert view.has_all_scores(1) and not view.has_all_scores(2)
    assert view.probes[1, "films"].score == 50.0
    view.add(STARTED)
    assert view.has_all_scores(2)


def test_cost_is_summed_over_tasks() -> None:
    view = fold("s", [STARTED, checkpoint(0), checkpoint(1)])
    assert (view.seconds, view.usage("steps"), view.usage("flops")) == (4.0, 6, None)
    assert View("s").usage("steps") is None


def test_status_follows_the_last_word() -> None:
    view = fold("s", [STARTED, *ALL_SCORES, SequenceFailed(reason="why")])
    assert (view.status, view.failure, view.has_ended) == ("failed", "why", True)
    assert view.add(STARTED)
    assert (view.status, view.failure, view.has_ended) == ("running", "", False)
    assert view.add(SequenceFinished())
    assert (view.status, view.has_ended) == ("finished", True)
    assert not view.add(SequenceFinished())


def test_a_sequence_is_not_finished_while_a_score_is_missing() -> None:
    for missing in ALL_SCORES:
        view = fold("s", [STARTED, *(s for s in ALL_SCORES if s is not missing), SequenceFinished()])
        assert (view.status, view.has_ended) == ("incomplete", True)
    assert fold("s", [SequenceFinished()]).status == "incomplete", "nor where its first line is lost"


def test_an_event_of_a_search_is_loud() -> None:
    with pytest.raises(TypeError, match="event 'search_chosen' is none of a sequence"):
        View("s").add(SearchChosen(sha256="x"))


def test_a_failure_to_score_counts_until_the_scores_are_there() -> None:
    failed = ScoringFailed(tasks_seen=1, reason="KeyError: 'x'", traceback="my own line")
    view = fold("s", [STARTED, failed])
    assert view.unscored() == [failed]
    view.add(score(1, 0, 10.0))
    assert view.unscored() == [failed], "one of its two scores is missing"
    view.add(score(1, 1, 10.0))
    assert view.unscored() == []


def test_the_last_step_is_the_one_that_is_furthest_on(tmp_path: Path) -> None:
    """However the steps came: told anew, a lost one comes last. As events and as a journal's lines."""
    steps = [step(0, number, loss=10.0 * number) for number in (1, 3, 2)]
    Journal(journal_folder(tmp_path, "s")).append_all([STARTED, *steps, step(0, 3, loss=99.0)])
    for view in (fold("s", steps), read_view(tmp_path, "s")):
        assert (len(view.by_task[0].steps), view.by_task[0].last_step) == (3, steps[1])


def test_a_step_whose_line_is_damaged_is_not_known(tmp_path: Path) -> None:
    """Also where it still reads as a step; a line of another version of a step is no step of ours."""
    journal = Journal(journal_folder(tmp_path, "s"))
    journal.append_all([step(0, 1), step(0, 2), step(0, 3)])
    path = journal.folder / "train.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"step": 2', b'"step": 7'))
    with path.open("ab") as stream:
        stream.write(seal(step(0, 4).to_json() | {"more": 1}) + b"\n")
    view = View("s")
    view.read(Tail(journal.folder))
    assert [number in view.by_task[0].steps for number in range(1, 8)] == [True, False, True, *[False] * 4]
    assert [(line.number, line.reason) for line in view.damaged] == [
        (2, "its checksum does not match"),
        (4, "event 'step': more: Extra inputs are not permitted"),
    ]


def test_a_view_takes_no_more_memory_for_more_steps(tmp_path: Path) -> None:
    sizes = []
    for count in (100, 5000):
        journal = Journal(journal_folder(tmp_path, f"s{count}"))
        journal.append_all([step(0, number) for number in range(1, count + 1)])
        tracemalloc.start()
        view = read_view(tmp_path, f"s{count}")
        sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert len(view.by_task[0].steps) == count
    assert sizes[1] < sizes[0] + 5000


def test_a_score_amid_training_counts_once() -> None:
    """Where a task is trained again, what was said first stands."""
    view = View("s")
    first = point(1, 4, 0, 30.0)
    assert view.add(first)
    assert not view.add(point(1, 4, 0, 99.0))
    assert view.add(point(1, 4, 1, 50.0))
    assert view.add(point(1, 5, 0, 50.0))
    assert view.add(point(0, 4, 0, 50.0))
    assert view.points[1, 4, 0] == first
    assert len(view.points) == 4


def test_what_a_report_measured_may_change() -> None:
    view = View("s")
    assert view.add(Measured(expert="expert", values={"fuar": 0.5}))
    assert not view.add(Measured(expert="expert", values={"fuar": 0.5}))
    later = Measured(expert="expert", values={"fuar": 0.25})
    assert view.add(later)
    assert view.measured == later


def test_attempts_count_since_the_last_progress() -> None:
    first = STARTED.model_copy(update={"run": "r", "attempt": "a"})
    second = STARTED.model_copy(update={"run": "r", "attempt": "b"})
    view = fold("s", [STARTED, first])
    assert view.attempts == [("", ""), ("r", "a")], "a journal that is older than the identities has none"
    view.add(checkpoint(0))
    assert (view.attempts, view.last_attempt, view.progress) == ([], ("r", "a"), 1)
    view.add(second)
    view.add(checkpoint(0))
    assert (view.attempts, view.progress) == ([("r", "b")], 1), "what was known is no progress"
