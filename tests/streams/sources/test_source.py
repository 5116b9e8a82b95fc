"""What every source has: settings that refuse an unknown key."""

from __future__ import annotations

import datetime
from typing import Any, Literal

import pytest
from pydantic import Field, ValidationError

from streams import Limits, Source, SourceSettings
from streams.sources.source import times_of


class Inner(SourceSettings):
    depth: int = 1


class Outer(Source):
    folder: str
    inner: tuple[Inner, ...] = ()


def test_an_unknown_key_is_refused_with_the_nearest_at_every_depth() -> None:
    with pytest.raises(ValidationError, match=r"unknown key 'foldr'\. Did you mean 'folder'"):
        Outer.model_validate({"foldr": "x"})
    with pytest.raises(ValidationError, match=r"unknown key 'dept'\. Did you mean 'depth'") as caught:
        Outer.model_validate({"folder": "x", "inner": [{}, {"dept": 2}]})
    assert caught.value.errors()[0]["loc"] == ("inner", 1)


def test_a_source_recognises_nothing_and_moves_nothing_unless_it_says_so() -> None:
    source = Outer(folder="x")
    assert not Outer.recognises({"folder": "x"})
    assert source.located() == source
    with pytest.raises(NotImplementedError):
        source.stream("s", Limits())


class Numbers(SourceSettings):
    count: int = 1
    shares: dict[str, float] = Field(default_factory=dict)
    words: tuple[str, ...] = ()
    flag: bool = False
    choice: Literal["all", True] = "all"
    anything: Any = None
    inner: Inner | None = None


@pytest.mark.parametrize(
    "wrong",
    [{"count": True}, {"count": False}, {"shares": {"a": 0.5, "b": True}}, {"words": ["a", False]}],
)
def test_a_boolean_is_no_number(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="where a number or a text is expected") as caught:
        Numbers.model_validate(wrong)
    assert caught.value.errors()[0]["loc"] == (next(iter(wrong)),)
    with pytest.raises(ValidationError, match="where a number or a text is expected") as caught:
        Numbers.model_validate({"inner": {"depth": True}})
    assert caught.value.errors()[0]["loc"] == ("inner", "depth")


def test_a_boolean_is_taken_where_one_is_meant() -> None:
    taken = Numbers.model_validate({"flag": True, "choice": True, "anything": [True], "count": 1})
    assert (taken.flag, taken.choice, taken.anything, taken.count) == (True, True, [True], 1)
    assert Numbers.model_validate({"shares": {"a": 1, "b": "0.5"}}).shares == {"a": 1.0, "b": 0.5}


def test_times_are_numbers_or_texts() -> None:
    assert times_of([2001, 1999.5], "here") == [2001.0, 1999.5]
    assert times_of([datetime.date(2020, 5, 1), "2020-06-01"], "here") == ["2020-05-01", "2020-06-01"]
    for wrong, part in (
        ([1, None], r"here: row 2 has no time \(found None\)"),
        ([True], r"row 1 has no time \(found True\)"),
        ([1, "2"], r"the times mix numbers and texts \('2' in row 2\)"),
    ):
        with pytest.raises(ValueError, match=part):
            times_of(wrong, "here")
