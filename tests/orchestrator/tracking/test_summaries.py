"""The metrics after a task have the same time in whichever order the scores come."""

from __future__ import annotations

from methods import run_kind
from orchestrator.store.records.event import Event
from orchestrator.store.view import fold
from orchestrator.tracking.summaries import summaries_at_last
from tests.orchestrator.store.examples import score, started


def scored(*cells: tuple[int, int, float, int]) -> list[Event]:
    """Scores by (tasks seen, task, score, time)."""
    return [
        score(tasks_seen, task_id, value).model_copy(update={"time": time})
        for tasks_seen, task_id, value, time in cells
    ]


SEEN = ((1, 0, 90.0, 10), (2, 0, 50.0, 30), (2, 1, 80.0, 20))
BEFORE = ((0, 0, 10.0, 95), (0, 1, 20.0, 90), (1, 1, 40.0, 70))


def test_what_follows_from_seen_tasks_does_not_move_when_the_others_come() -> None:
    """aa: (50 + 80) / 2; bwt: 50 - 90; fwt: 40 - 20, at the time of the last score of all."""
    start = started("a", "b")
    kind = run_kind(None)
    (group,) = summaries_at_last(fold("s", [start, *scored(*SEEN)]), kind, 2)
    assert (group[0], group[1]["aa"], group[1]["bwt"]) == (30, 65.0, -40.0)
    # one of them is there, and the number that needs all is not said yet
    assert len(summaries_at_last(fold("s", [start, *scored(*SEEN, BEFORE[2])]), kind, 2)) == 1
    first, second = summaries_at_last(fold("s", [start, *scored(*BEFORE, *SEEN)]), kind, 2)
    assert (first[0], first[1]["aa"], first[1]["bwt"]) == (30, 65.0, -40.0)
    assert (second[0], second[1]["fwt"]) == (95, 20.0)
    assert "aa" not in second[1]


def test_only_the_tasks_so_far_count() -> None:
    view = fold("s", [started("a", "b"), *scored(*SEEN, *BEFORE)])
    (first, second) = summaries_at_last(view, run_kind(None), 1)
    assert (first[0], first[1]["aa"]) == (10, 90.0)
    assert second[0] == 95, "the initial model's score on the first task"
