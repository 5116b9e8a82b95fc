"""The view: what follows from a sequence's events, each fact once."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.store.events import ScoringFailed, SearchChosen, SequenceFailed, SequenceFinished, TaskStarted
from orchestrator.store.view import View, fold
from tests.orchestrator.store.examples import checkpoint, score, started, step

STARTED = started("a", "b")
ALL_SCORES = [score(tasks_seen, task_id, 1.0) for tasks_seen in range(3) for task_id in range(2)]


def test_of_two_events_on_one_fact_the_first_stands() -> None:
    begun = TaskStarted(task_id=0, task="a", steps=3, reused=False, time=5)
    view = fold("s", [STARTED, begun, step(0, 1, 1.0), step(0, 1, 2.0), score(0, 0, 10.0), score(0, 0, 20.0)])
    assert view.by_task[0].steps[1].loss == 1.0
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


def test_cost_is_summed_over_tasks() -> None:
    view = fold("s", [STARTED, checkpoint(0), checkpoint(1)])
    assert (view.seconds, view.usage("steps"), view.usage("flops")) == (4.0, 6, None)
    assert View("s").usage("steps") is None


def test_status_follows_the_last_word() -> None:
    view = fold("s", [STARTED, *ALL_SCORES, SequenceFailed(reason="why", time=3)])
    assert (view.status, view.failure, view.ended_at) == ("failed", "why", 3)
    assert view.add(STARTED)
    assert (view.status, view.failure, view.ended_at) == ("running", "", 0)
    assert view.add(SequenceFinished(time=4))
    assert (view.status, view.ended_at) == ("finished", 4)
    assert not view.add(SequenceFinished(time=5))


def test_a_sequence_is_not_finished_while_a_score_is_missing() -> None:
    for missing in ALL_SCORES:
        view = fold("s", [STARTED, *(s for s in ALL_SCORES if s is not missing), SequenceFinished(time=4)])
        assert (view.status, view.ended_at) == ("incomplete", 4)
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
