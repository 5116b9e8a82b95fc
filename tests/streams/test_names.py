"""The line about a name that nobody knows."""

from __future__ import annotations

import pytest

from streams.names import unknown_name


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
