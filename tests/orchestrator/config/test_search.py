"""The `search` section: what a dimension may be, how many values it has, and searches that make no sense."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.config.search import Dimension, SearchConfig


@pytest.mark.parametrize(
    ("search", "part"),
    [
        ({"grace": 1}, "greater than or equal to 2"),
        ({"select": "first-task", "scheduler": "asha"}, "asha needs several tasks"),
        ({"seeds": [1, 1]}, "given twice"),
        ({"streams": ["embedded-tuning", "embedded-tuning"]}, "given twice"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(search: dict[str, Any], part: str) -> None:
    with pytest.raises(ValidationError, match=part):
        SearchConfig.model_validate({"streams": ["embedded-tuning"], **search})


@pytest.mark.parametrize(
    "wrong",
    [{}, {"low": 1}, {"low": 2, "high": 1}, {"low": 0, "high": 1, "log": True}, [1, 1], [], {"values": [1], "low": 0}],
)
def test_a_dimension_is_a_list_or_a_range(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        Dimension.model_validate(wrong)


def test_a_dimension_knows_how_many_values_it_has() -> None:
    assert Dimension(values=(0.1, 0.5)).size == 2
    assert Dimension(low=2, high=5, integer=True).size == 4
    assert Dimension(low=1.5, high=5.5, integer=True).size == 4, "no whole number is drawn beyond its ends"
    assert Dimension(low=2, high=5).size == math.inf


def test_a_fraction_of_a_range_by_hand() -> None:
    assert Dimension(low=-1, high=3).value_at(0.25) == 0.0
    assert Dimension(low=1e-4, high=1e-2, log=True).value_at(0.5) == 1e-3
    assert Dimension(low=2, high=5, integer=True).value_at(0.5) == 4, "3.5 rounds to the even number"
    assert Dimension(low=0.5, high=5.4, integer=True).value_at(0.0) == 1, "the size counts no whole number below 1"
    assert Dimension(low=0, high=1).value_at(1 / 3) == 0.333333, "six digits"


def test_bounds() -> None:
    assert Dimension(values=(3.0, 1.0, 2.0)).bounds == (1.0, 3.0)
    assert Dimension(low=0.5, high=5.4).bounds == (0.5, 5.4)
