"""The generated stream."""

from __future__ import annotations

from streams import Limits, named_stream, vocabulary


def test_five_tasks_with_labels_of_their_own_and_no_shared_text() -> None:
    stream = named_stream("embedded")
    assert len(stream.tasks) == 5
    labels = [label for task in stream.tasks for label in task.labels]
    assert len(labels) == len(set(labels)) == 19
    assert len({task.instruction for task in stream.tasks}) == 5
    for task in stream.tasks:
        texts = {split: {e.text for e in task.read(split)} for split in ("train", "dev", "test")}
        assert not texts["train"] & texts["test"]
        assert not texts["dev"] & texts["test"]
        assert not texts["train"] & texts["dev"]
        counts = [sum(e.label == label for e in task.read("test")) for label in task.labels]
        assert min(counts) >= 30, "a class is rare"


def test_it_is_a_function_of_its_seed() -> None:
    first, again, other = (named_stream("embedded", Limits(seed=s)) for s in (0, 0, 1))
    assert [t.train_hash for t in first.tasks] == [t.train_hash for t in again.tasks]
    assert all(a.train_hash != b.train_hash for a, b in zip(first.tasks, other.tasks, strict=True))


def test_the_vocabulary_covers_the_texts() -> None:
    known = set(vocabulary())
    for task in named_stream("embedded").tasks:
        for example in task.read("train"):
            assert set(example.text.split()) <= known
