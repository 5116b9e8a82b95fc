"""True and false where a number is meant, which YAML makes of yes, no, on and off."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from methods.seam.booleans import refuse_boolean, refuse_no_number


def refusal(value: Any, annotation: Any) -> str:
    """What is said of a value; nothing where it passes."""
    try:
        refuse_boolean(value, annotation)
    except ValueError as error:
        return str(error)
    return ""


class Inner(BaseModel):
    """A section of its own, which checks its own fields."""

    on: bool


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (True, int),
        (False, float),
        (True, int | None),
        (True, str),
        (True, Literal["auto", 1]),
        ([0.9, True], list[float]),
        ((0.9, True), tuple[float, float]),
        ({"head": False}, dict[str, float]),
        ({"tasks": [{"epochs": True}]}, dict[str, list[dict[str, int]]]),
    ],
)
def test_a_boolean_for_a_number_or_a_text_is_refused_at_any_depth(value: Any, annotation: Any) -> None:
    assert refusal(value, annotation).startswith(
        f"found {value!r} where a number or a text is expected (YAML reads yes, no"
    )


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (True, bool),
        (False, bool | None),
        (True, Literal["auto", True]),
        ([True], list[bool]),
        ({"a": True}, dict[str, Any]),
        (True, Any),
        ({"on": True}, Inner),
        ([{"on": True}], tuple[Inner, ...]),
        (1, int),
        (0, float),
        ("true", str),
        ([1, 0], list[int]),
        ({"yes": 1}, dict[str, int]),
        (None, int | None),
    ],
)
def test_what_is_no_boolean_or_may_be_one_passes(value: Any, annotation: Any) -> None:
    assert refusal(value, annotation) == ""


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e31, [0.5, math.inf], {"a": (1, math.nan)}])
def test_what_is_no_number(value: Any) -> None:
    with pytest.raises(ValueError, match="allowed: numbers up to 1e\\+30"):
        refuse_no_number(value)


@pytest.mark.parametrize("value", [0.0, -1e30, 10**40, "inf", None, True, [1.0, {"a": 2.0}]])
def test_what_may_be_meant(value: Any) -> None:
    refuse_no_number(value)
