"""What all scenarios share."""

from __future__ import annotations

import pytest

from streams import SealedSplit, Task
from streams.scenarios.orders import Repeated
from streams.scenarios.scenario import occurrences
from streams.scenarios.time_slices import TimeSlices
from tests.streams.scenarios.small import Asked, stream_of, task_of


def test_a_task_that_comes_again_has_the_content_of_the_first() -> None:
    a = task_of(name="a")
    b = task_of(name="b")
    tasks = occurrences([a, b, a, a])
    assert [task.name for task in tasks] == ["a", "b", "a@2", "a@3"]
    assert tasks[0] is a and tasks[1] is b
    assert tasks[2].train_hash == tasks[3].train_hash == task_of(name="a").train_hash
    assert tasks[3].test_hash == task_of(name="a").test_hash != b.test_hash
    assert str(tasks[3].prompt("A.")) == str(a.prompt("A."))
    # read once, by whichever comes first
    assert isinstance(a.load, Asked)
    assert sorted(a.load.splits) == ["test", "train"]


def test_each_occurrence_tells_that_its_test_split_is_read() -> None:
    told: list[str] = []

    def tell(task: Task) -> None:
        told.append(task.name)

    stream = Repeated(times=2).apply(stream_of(task_of(name="a")))
    watched = stream.watched(tell)
    for task in watched.tasks:
        task.read("test")
    assert told == ["a", "a@2"]
    for task in stream.sealed().tasks:
        with pytest.raises(SealedSplit, match=f"task '{task.name}': the test split is sealed"):
            task.read("test")


def test_one_task_of_several_has_to_be_named() -> None:
    stream = stream_of(task_of(name="a"), task_of(name="b"))
    assert TimeSlices(slices=2, task="b").one_task(stream).name == "b"
    with pytest.raises(
        ValueError, match="stream 's': scenario 'time-slices': `task` says which one is cut: one of a, b"
    ):
        TimeSlices(slices=2).apply(stream)
    with pytest.raises(ValueError, match="scenario 'time-slices': unknown task 'c'"):
        TimeSlices(slices=2, task="c").apply(stream)
    with pytest.raises(ValueError, match="task 'o' has no label set to be cut by"):
        TimeSlices(slices=2).labels_of(stream_of(Task("o", "", "", (), "here", Asked([]))))
