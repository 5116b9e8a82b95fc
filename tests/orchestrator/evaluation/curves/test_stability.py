"""Metrics of what happened amid training, by hand and against plain second implementations."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from orchestrator.evaluation.curves.stability import STABILITY, Point, curves, deepest_fall, stability, worst_scores

# two tasks: the first falls from 90 to 20 after one step of the second, and is back at 70 in the end
GAP = [
    Point(0, 0, 0, 10.0),
    Point(0, 1, 0, 40.0),
    Point(0, 2, 0, 90.0),
    Point(1, 0, 0, 90.0),
    Point(1, 0, 1, 5.0),
    Point(1, 1, 0, 20.0),
    Point(1, 1, 1, 30.0),
    Point(1, 2, 0, 70.0),
    Point(1, 2, 1, 80.0),
]


def test_a_gap_by_hand() -> None:
    values = stability(GAP, 2, window=10)
    assert values["min_acc"] == 20
    assert values["wc_acc"] == (80 + 20) / 2
    # the first falls from 90 to 20, the second never
    assert values["wf"] == (70 + 0) / 2
    # the first rises from 10 to 90, the second from 5 to 80
    assert values["wp"] == (80 + 75) / 2
    assert list(values) == list(STABILITY)


def test_in_a_window_of_two_points_only_neighbours_count() -> None:
    values = stability(GAP, 2, window=2)
    assert values["wf"] == (70 + 0) / 2
    # 40 to 90 and 20 to 70; 30 to 80
    assert values["wp"] == (50 + 50) / 2
    slow = [Point(0, step, 0, score) for step, score in enumerate([100.0, 90.0, 80.0, 70.0, 60.0])]
    assert [stability(slow, 1, window)["wf"] for window in (2, 3, 4, 5, 9)] == [10, 20, 30, 40, 40]


def test_what_was_learnt_is_untouched_before_the_first_step_of_the_next_task() -> None:
    """A task that only gets better is at its worst after a step of the next one, not before it."""
    points = [Point(0, 1, 0, 50.0), Point(1, 0, 0, 50.0), Point(1, 1, 0, 60.0), Point(1, 1, 1, 80.0)]
    assert stability(points, 2, window=10)["min_acc"] == 60
    # a later task's first look counts: the state after the one between has been reached
    later = [*points, Point(2, 0, 0, 40.0), Point(2, 0, 1, 80.0), Point(2, 1, 0, 55.0), Point(2, 1, 1, 75.0)]
    assert worst_scores(later, 3) == [40, 75]


def test_one_task_has_no_earlier_ones() -> None:
    values = stability(GAP, 1, window=10)
    assert math.isnan(values["min_acc"])
    assert (values["wc_acc"], values["wf"], values["wp"]) == (90, 0, 80)


def test_a_task_without_points_leaves_nothing_known() -> None:
    """Its state was found, trained without a look: the gap of the task before may have been there."""
    partly = [point for point in GAP if point.task_id != 0]
    assert all(math.isnan(value) for value in stability(partly, 2, window=10).values())
    assert all(math.isnan(value) for value in stability(GAP, 3, window=10).values())
    assert all(math.isnan(value) for value in stability([], 1, window=10).values())


def test_where_lower_is_better_a_rise_is_a_fall() -> None:
    mirrored = [point._replace(score=100 - point.score) for point in GAP]
    values = stability(mirrored, 2, window=10, better="lower")
    assert values["min_acc"] == 80, "the worst perplexity is the highest"
    assert values["wc_acc"] == (20 + 80) / 2
    assert (values["wf"], values["wp"]) == (35, 77.5)


def plain_window(scores: list[float], window: int, rises: bool) -> float:
    """Every pair of every window, as the definition says."""
    largest = 0.0
    for start in range(len(scores)):
        part = scores[start : start + window]
        for i, j in itertools.combinations(range(len(part)), 2):
            change = part[j] - part[i]
            largest = max(largest, change if rises else -change)
    return largest


@pytest.mark.parametrize("seed", range(5))
def test_random_points_against_the_definitions(seed: int) -> None:
    rng = random.Random(seed)
    num_tasks, window = 4, rng.choice([2, 3, 5])
    points = []
    for task_id in range(num_tasks):
        for step in range(rng.randint(3, 8)):
            for scored in range(task_id + 1):
                points.append(Point(task_id, step, scored, float(rng.randint(0, 100))))
    by_task: list[list[float]] = [[p.score for p in points if p.scored_id == task] for task in range(num_tasks)]
    worst = []
    for task in range(num_tasks - 1):
        later = [
            p.score for p in points if p.scored_id == task and p.task_id > task and (p.task_id, p.step) != (task + 1, 0)
        ]
        worst.append(min(later))
    shuffled = rng.sample(points, len(points))
    values = stability(shuffled, num_tasks, window)
    assert curves(shuffled, num_tasks) == by_task
    assert values["min_acc"] == pytest.approx(sum(worst) / 3)
    assert values["wc_acc"] == pytest.approx((sum(worst) + by_task[3][-1]) / 4)
    assert values["wf"] == pytest.approx(sum(plain_window(scores, window, False) for scores in by_task) / 4)
    assert values["wp"] == pytest.approx(sum(plain_window(scores, window, True) for scores in by_task) / 4)
    assert deepest_fall([], window) == 0


def test_the_registry_says_which_direction_is_better() -> None:
    assert [metric.heading for metric in STABILITY.values()] == ["min-ACC ↑", "WC-ACC ↑", "WF ↓", "WP ↑"]
    assert all(name == metric.name for name, metric in STABILITY.items())
