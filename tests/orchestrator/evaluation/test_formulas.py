"""The formulas by hand; `test_metrics` has them on published matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest

from orchestrator.evaluation import formulas

ACC = np.array([[90.0, 25.0, 35.0], [60.0, 80.0, 40.0], [70.0, 50.0, 100.0]])


def test_none_is_what_was_not_measured() -> None:
    matrix = formulas.as_matrix([[1.0, None], [2.0, 3.0]])
    assert math.isnan(matrix[0, 1])
    assert matrix[1].tolist() == [2.0, 3.0]


def test_tasks_may_be_named_in_any_order_and_be_more_than_there_are_yet() -> None:
    assert formulas.average_accuracy(ACC, [2, 0, 7]) == 85.0
    assert formulas.average_incremental_accuracy(ACC, [2, 1]) == pytest.approx((80 + (50 + 100) / 2) / 2)
    assert formulas.learning_accuracy(ACC, [1]) == 80.0


def test_of_no_task_nothing_is_known() -> None:
    full = np.vstack([np.zeros(3), ACC])
    for value in (
        formulas.average_accuracy(ACC, [3]),
        formulas.micro_average_accuracy(ACC, [1, 1, 1], [3]),
        formulas.backward_transfer(ACC, [2]),
        formulas.forgetting(ACC, [2]),
        formulas.average_incremental_accuracy(ACC, []),
        formulas.forward_transfer(full, [0]),
        formulas.intransigence(ACC, np.zeros(3), []),
    ):
        assert math.isnan(value)
    assert math.isnan(formulas.micro_average_accuracy(ACC, [0, 0, 0])), "no task was scored, so no size is known"
