"""The line about a name that nobody knows."""

from __future__ import annotations

import pytest

from streams.names import check_name, unknown_name


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("embeded", "unknown stream 'embeded'. Did you mean 'embedded'? Known: order1, embedded"),
        ("xyz", "unknown stream 'xyz'. Known: order1, embedded"),
    ],
)
def test_the_nearest_name_is_offered_only_where_one_is_near(name: str, line: str) -> None:
    # an iterator, which would be empty at its second reading
    assert unknown_name("stream", name, iter(["order1", "embedded"])) == line


@pytest.mark.parametrize("name", ["", " ", "a\0b", "a\nb", "\ud800", "x" * 101, ".", "..", "/", "/x", "a/../b", "../x"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="is no name of a task: ") as refused:
        check_name("task", name)
    assert len(str(refused.value)) < 150


@pytest.mark.parametrize("name", ["news", "C-STANCE", "glue/sst2", "tâche 1", "...", "x" * 100])
def test_what_is_a_name(name: str) -> None:
    check_name("task", name)
