"""Streams: order, labels, sealing, manifests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from streams import (
    Example,
    Limits,
    SealedSplit,
    Stream,
    Task,
)
from tests.streams.examples import ROWS, Loads, task


def test_reading_test_is_announced_once_and_before_it_happens() -> None:
    loads, seen = Loads(), []
    stream = loads.stream().watched(lambda t: seen.append((t.name, list(loads.asked))))
    first = stream.tasks[0]
    first.read("train"), first.train_hash, first.read("dev")
    assert seen == []
    first.read("test"), first.test_hash, first.dropped_rows("test")
    assert seen == [("a", ["train"])]
    assert loads.asked == ["train", "test"]
    stream.manifest()
    assert [name for name, _ in seen] == ["a", "b"]


def test_a_sealed_task_announces_nothing() -> None:
    seen: list[Task] = []
    (t, _) = Loads().stream().watched(seen.append).sealed().tasks
    with pytest.raises(SealedSplit):
        t.read("test")
    assert seen == []


def test_what_was_read_is_not_read_again_for_another_and_is_announced_all_the_same() -> None:
    loads = Loads()
    readers: list[list[str]] = [[], []]
    first, second = (loads.stream().watched(lambda t, seen=seen: seen.append(t.name)) for seen in readers)
    assert first.tasks[0].test_hash == second.tasks[0].test_hash
    assert loads.asked == ["test", "test"], "two streams that share nothing"
    later: list[str] = []
    third = first.watched(lambda t: later.append(t.name))
    assert third.tasks[0].test_hash == first.tasks[0].test_hash
    assert third.tasks[0].read("test") is first.tasks[0].read("test")
    third.tasks[0].dropped_rows("test")
    assert (loads.asked, readers, later) == (["test", "test"], [["a"], ["a"]], ["a"])
    # in whichever order: what the later one reads, the earlier one has
    assert third.tasks[1].read("train") is first.tasks[1].read("train")
    assert loads.asked == ["test", "test", "train"]


def test_what_was_read_is_sealed_for_who_must_not_see_it() -> None:
    stream = Loads().stream()
    stream.tasks[0].read("test"), stream.tasks[0].test_hash
    sealed = stream.sealed().tasks[0]
    for read in (lambda: sealed.read("test"), lambda: sealed.test_hash, lambda: sealed.dropped_rows("test")):
        with pytest.raises(SealedSplit):
            read()


def test_a_task_that_is_asked_otherwise_has_another_hash_also_after_it_was_read() -> None:
    t = task()
    before = t.train_hash
    other = replace(t, labels=("yes", "no", "odd"))
    assert other.train_hash != before == t.train_hash == task().train_hash
    assert other.train_hash == task(labels=("yes", "no", "odd")).train_hash
    with pytest.raises(AssertionError):
        t.sharing(labels=("a", "b"))


def test_a_split_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Task._hash
    hashed: list[str] = []

    def counted(t: Task, examples: Sequence[Example]) -> str:
        hashed.append(t.name)
        return original(t, examples)

    monkeypatch.setattr(Task, "_hash", counted)
    stream = Loads().stream()
    for _ in range(3):
        stream.manifest()
        stream.watched(print).sealed().tasks[0].split_hash("dev")
    # train, dev and test of both tasks
    assert sorted(hashed) == ["a"] * 3 + ["b"] * 3


def test_the_manifest_says_what_the_data_is() -> None:
    t = task([*ROWS, Example("odd", "-")])
    assert Stream("s", (t,)).manifest() == [
        {
            "task": "t",
            "dataset": "t",
            "source": "here",
            "labels": ["yes", "no"],
            "prompt": "benchmark",
            "scorer": "exact-match",
            "sizes": {"train": 36, "dev": 4, "test": 5},
            "dropped_rows": {"train": 1, "test": 0},
            "train_sha256": t.train_hash,
            "dev_sha256": t.split_hash("dev"),
            "test_sha256": t.test_hash,
        }
    ]
    assert Stream("s", (task(limits=Limits(dev_fraction=0)),)).manifest()[0]["dev_sha256"] is None


def test_the_manifest_of_a_sealed_stream_says_nothing_of_test() -> None:
    loads = Loads()
    (row, _) = loads.stream().sealed().manifest()
    (full, _) = loads.stream().manifest()
    assert row == {
        **{key: value for key, value in full.items() if key != "test_sha256"},
        "sizes": {"train": 36, "dev": 4},
        "dropped_rows": {"train": 0},
    }
    assert loads.asked.count("test") == 2, "only the full manifest of two tasks reads test"


def test_the_first_tasks_of_a_stream() -> None:
    stream = Loads().stream()
    assert (stream.first(1).name, stream.first(1).tasks) == ("s", stream.tasks[:1])
    assert stream.first(2).tasks == stream.tasks
    for count in (0, 3, -1):
        with pytest.raises(ValueError, match=f"the first {count} tasks of 2"):
            stream.first(count)


def test_labels_grow_with_the_stream() -> None:
    stream = Stream("s", (task(name="a"), task(name="b", labels=("maybe", "no", "never"))))
    assert stream.labels_until(1) == ("yes", "no")
    assert stream.labels_until(2) == ("yes", "no", "maybe", "never")
    with pytest.raises(ValueError, match="names a task twice"):
        Stream("s", (task(), task()))
