"""Numbers as JSON and tables show them."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.report.numbers import mean_and_deviation, mean_usage, plain_matrix, plain_number


def test_json_has_no_nan() -> None:
    assert plain_number(float("nan")) is plain_number(None) is None
    assert plain_number(1 / 3) == 0.333333
    assert plain_matrix(np.array([[1.0, np.nan], [2.0, 3.0]])) == [[1.0, None], [2.0, 3.0]]


def test_a_mean_is_over_what_is_known() -> None:
    assert mean_and_deviation([None, None]) == "–"
    assert mean_and_deviation([43.04, None]) == "43.0"
    assert mean_and_deviation([42.0, 44.0, None]) == "43.0 ± 1.4"


@pytest.mark.parametrize(
    ("values", "unit", "shown"),
    [
        ([41_200, 41_240], "tokens", "41.2k"),
        ([2.5e9], "tokens", "2.5G"),
        ([1_000_000], "tokens", "1.0M"),
        ([12], "tokens", "12.0"),
        ([3.1e12], "flops", "3.1e12"),
        ([0, 0], "flops", "0"),
        ([None], "tokens", "–"),
    ],
)
def test_usage_in_few_letters(values: list[float | None], unit: str, shown: str) -> None:
    assert mean_usage(values, unit) == shown


def test_digits_are_those_that_the_unit_is_worth() -> None:
    assert mean_and_deviation([1.0, 1.5], 3) == "1.250 ± 0.354"
    assert mean_and_deviation([1.23456], 2) == "1.23"
