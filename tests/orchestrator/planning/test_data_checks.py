"""What of a stream's data a plan takes."""

from __future__ import annotations

import pytest

from orchestrator.errors import UserError
from orchestrator.planning.data_checks import check_leaks
from streams import Example, Limits, RawSplit, Stream, Task


def task(name: str, word: str, num_seen: int) -> Task:
    """Forty train rows, and twenty test rows of which so many are in train."""

    def load(split: RawSplit) -> list[Example]:
        first = 0 if split == "train" else 40 - num_seen
        return [Example(f"{word} {i}", "yes") for i in range(first, first + (40 if split == "train" else 20))]

    return Task(name, "", "", ("yes", "no"), "here", load, Limits(dev_fraction=0))


def test_all_that_is_refused_is_said_at_once_each_in_a_line() -> None:
    stream = Stream("s", (task("t", "a", 10), task("u", "b", 1), task("v", "a", 0)))
    with pytest.raises(UserError) as caught:
        check_leaks(stream, ())
    assert str(caught.value).splitlines() == [
        "stream 's', task 't': 10 of 20 test texts (50 %) are train texts too",
        "stream 's', tasks 't' and 'v': 50 rows with one text and one answer are in both, 100 % of the smaller; "
        "`allow: [train-test-overlap, same-task-twice]` in the stream's entry trains on it all the same",
    ]


def test_what_is_allowed_is_told_and_the_rest_refused() -> None:
    stream = Stream("s", (task("t", "a", 10), task("u", "b", 1)))
    assert check_leaks(stream, ["train-test-overlap"]) == [
        "stream 's', task 't': 10 of 20 test texts (50 %) are train texts too (allowed)",
        "stream 's', task 'u': 1 of 20 test texts (5 %) are train texts too",
    ]
    with pytest.raises(UserError, match=r"task 't': 10 of 20 .*`allow: \[train-test-overlap\]`"):
        check_leaks(stream, ["same-task-twice", "dev-is-test"])
