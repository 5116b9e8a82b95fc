"""Slices that follow each other in time."""

from __future__ import annotations

import pytest

from streams import Example, Limits, Task
from streams.scenarios.time_slices import TimeSlices
from tests.streams.scenarios.small import WHOLE, Asked, stream_of, texts


def task(rows: list[Example], limits: Limits = WHOLE) -> Task:
    return Task("t", "", "", ("a", "b"), "here", Asked(rows), limits)


ROWS = [Example(f"row {i}", "ab"[i % 2]) for i in range(10)]


def test_slices_are_consecutive_and_no_row_is_lost() -> None:
    stream = TimeSlices(slices=3).apply(stream_of(task(ROWS)))
    assert stream.task_names == ("t-1", "t-2", "t-3")
    # 10 rows: 0 to 2, 3 to 5, 6 to 9
    for part, numbers in zip(stream.tasks, (range(3), range(3, 6), range(6, 10)), strict=True):
        assert texts(part) == [f"row {i}" for i in numbers]
        assert texts(part, "test") == [f"test of row {i}" for i in numbers]
        assert part.labels == ("a", "b")
    assert len({part.test_hash for part in stream.tasks}) == 3


def test_a_time_goes_before_the_place() -> None:
    years = [2003.0, 2001.0, 2004.0, 2002.0]
    numbered = [Example(f"of {year:.0f}", "a", time=year) for year in years]
    dated = [Example(f"of {year:.0f}", "a", time=f"{year:.0f}-05-01") for year in years]
    for rows in (numbered, dated):
        stream = TimeSlices(slices=2).apply(stream_of(task(rows)))
        assert [texts(part) for part in stream.tasks] == [["of 2001", "of 2002"], ["of 2003", "of 2004"]]


def test_a_row_is_in_dev_as_in_the_whole_and_caps_are_of_each_slice() -> None:
    rows = [Example(f"row {i:02d}", "a") for i in range(40)]
    whole = task(rows, Limits(dev_fraction=0.25))
    parts = TimeSlices(slices=2).apply(stream_of(whole)).tasks
    assert sorted(texts(parts[0], "dev") + texts(parts[1], "dev")) == texts(whole, "dev")
    assert [len(part.read("dev")) for part in parts] == [5, 5]
    capped = TimeSlices(slices=2).apply(stream_of(task(rows, Limits(max_train=3, dev_fraction=0)))).tasks
    in_order = task(rows, WHOLE).read("train")
    earlier = [example for example in in_order if example.text < "row 20"]
    assert list(capped[0].read("train")) == earlier[:3]


def test_one_slice_is_none() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        TimeSlices(slices=1)
