"""FUAR by hand."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.evaluation.curves.knowledge import NO_GAIN, fuar

# four tasks; rows: before training, then after each
FULL = np.array(
    [
        [10.0, 20.0, 30.0, 40.0],
        [90.0, 25.0, 35.0, 40.0],
        [60.0, 80.0, 40.0, 40.0],
        [50.0, 70.0, 75.0, 45.0],
        [70.0, 85.0, 60.0, 65.0],
    ]
)


def test_drops_over_gains() -> None:
    """The first falls from 90 to 70 and the second rises; the third gains 60 - 40, the fourth 65 - 45."""
    assert fuar(FULL, [0, 1], [2], [3]) == pytest.approx((20 + 0) / (20 + 20))
    assert fuar(FULL, [0], [], [3]) == pytest.approx(20 / 20)
    assert fuar(FULL, [1], [2], []) == 0


def test_a_task_that_lost_gains_nothing_and_takes_nothing_away() -> None:
    worse = FULL.copy()
    worse[-1, 2] = 5.0
    assert fuar(worse, [0], [2], [3]) == pytest.approx(20 / 20)


def test_without_any_gain_there_is_no_ratio() -> None:
    worse = FULL.copy()
    worse[-1, 2:] = 0.0
    assert fuar(worse, [0], [2], [3]) == NO_GAIN == "no gain"
    assert fuar(FULL, [0], [], []) == NO_GAIN


def test_where_lower_is_better_a_rise_is_forgetting() -> None:
    assert fuar(100 - FULL, [0, 1], [2], [3], better="lower") == pytest.approx(0.5)
