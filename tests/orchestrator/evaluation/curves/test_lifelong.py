"""Lifelong metrics by hand: what is kept, transferred and learnt, beside experts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from orchestrator.evaluation.curves.lifelong import LIFELONG, learning_curve, lifelong
from orchestrator.evaluation.curves.stability import Point

FULL = np.array([[10.0, 20.0, 30.0], [90.0, 25.0, 35.0], [60.0, 80.0, 40.0], [70.0, 50.0, 100.0]])


def own_curve(task_id: int, scores: dict[int, float]) -> list[Point]:
    """The points of a task on itself, by step."""
    return [Point(task_id, step, task_id, score) for step, score in scores.items()]


def test_what_follows_from_the_matrix() -> None:
    values = lifelong(FULL)
    # the first task: 60 and 70 after 90; the second: 50 after 80
    assert values["performance_maintenance"] == pytest.approx((((60 + 70) / 2 - 90) + (50 - 80)) / 2)
    # 25 before the second's turn, 20 at first; 40 and 30
    assert values["forward_transfer_contrast"] == pytest.approx((5 / 45 + 10 / 70) / 2)
    # the first over the second task: 90 to 60; over the third: 60 to 70, and the second 80 to 50
    assert values["backward_transfer_contrast"] == pytest.approx((-30 / 150 + 10 / 130 + -30 / 130) / 3)
    assert math.isnan(values["relative_performance"])
    assert list(values) == list(LIFELONG)


def test_two_scores_of_zero_are_no_transfer() -> None:
    values = lifelong(np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 80.0]]))
    assert values["forward_transfer_contrast"] == 0
    assert values["backward_transfer_contrast"] == -1


def test_one_task_has_nothing_to_keep_or_transfer() -> None:
    values = lifelong(np.array([[10.0], [90.0]]))
    assert all(math.isnan(value) for value in values.values())


def test_learning_curves_beside_the_expert() -> None:
    """The run has 4 steps, the expert 8; the run is at its best after 2, the expert after 4."""
    own = own_curve(0, {0: 20.0, 1: 40.0, 2: 80.0, 4: 80.0})
    # another task's point amid this one's training, and this one's amid another's, are no part of the curve
    others = [Point(1, 1, 0, 100.0), Point(1, 0, 1, 3.0), Point(1, 4, 1, 3.0)]
    expert = own_curve(0, {0: 0.0, 2: 50.0, 4: 100.0, 8: 100.0})
    values = lifelong(FULL, [*others, *own], expert)
    # 30 + 60 + 160 over four steps; the expert's first four: 50 + 150
    assert values["relative_performance"] == pytest.approx(250 / 200)
    assert values["saturation"] == pytest.approx(80 / 100)
    assert values["saturation_speed"] == pytest.approx(4 / 2)
    assert values["sample_efficiency"] == pytest.approx(0.8 * 2)
    assert learning_curve([*others, *own], 0).tolist() == [[0, 20], [1, 40], [2, 80], [4, 80]]


def test_the_shorter_curve_ends_the_comparison_between_two_points() -> None:
    own = own_curve(0, {0: 0.0, 4: 40.0})
    expert = own_curve(0, {0: 0.0, 2: 10.0, 3: 40.0})
    # up to three steps: 3 · 30 / 2; the expert's 10 + 25
    assert lifelong(FULL, own, expert)["relative_performance"] == pytest.approx(45 / 35)


def test_means_are_over_the_tasks_that_have_a_value() -> None:
    """The second expert never scores, and was best before its first step: no ratio to it."""
    own = [*own_curve(0, {0: 0.0, 2: 40.0}), *own_curve(1, {0: 10.0, 2: 50.0})]
    expert = [*own_curve(0, {0: 0.0, 2: 80.0}), *own_curve(1, {0: 0.0, 2: 0.0})]
    values = lifelong(FULL, own, expert)
    assert values["relative_performance"] == 0.5
    assert values["saturation"] == 0.5
    assert values["saturation_speed"] == 1.0
    assert values["sample_efficiency"] == 0.5


def test_where_lower_is_better_all_is_turned() -> None:
    """Perplexities: from 30 to 10 is a gain, and the run that ends at 10 is better than the expert at 20."""
    matrix = np.array([[40.0, 30.0], [10.0, 20.0], [15.0, 5.0]])
    own = own_curve(0, {0: 40.0, 2: 10.0, 4: 10.0})
    expert = own_curve(0, {0: 40.0, 2: 30.0, 4: 20.0})
    values = lifelong(matrix, own, expert, better="lower")
    assert values["performance_maintenance"] == -5
    assert values["forward_transfer_contrast"] == pytest.approx(10 / 50)
    assert values["backward_transfer_contrast"] == pytest.approx(-5 / 25)
    # areas 50 + 20 and 70 + 50
    assert values["relative_performance"] == pytest.approx(120 / 70)
    assert values["saturation"] == 2
    assert values["saturation_speed"] == 2
