"""Streams: order, labels, sealing, manifests."""

from __future__ import annotations

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
