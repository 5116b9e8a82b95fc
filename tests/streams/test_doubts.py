"""What makes a score say nothing."""

from __future__ import annotations

import pytest

from streams import Example, Limits, RawSplit, Stream, Task, doubts


def stream_of(
    train: list[Example], test: list[Example], labels: tuple[str, ...] = ("yes", "no"), dev: float = 0
) -> Stream:
    def load(split: RawSplit) -> list[Example]:
        return train if split == "train" else test

    return Stream("s", (Task("t", "", "", labels, "here", load, Limits(dev_fraction=dev)),))


TRAIN = [Example(f"train {i}", "yes" if i % 2 else "no") for i in range(10)]
TEST = [Example(f"test {i}", "yes" if i % 2 else "no") for i in range(10)]


def test_one_label_alone() -> None:
    rows = [Example(f"text {i}", "yes") for i in range(4)]
    (line,) = doubts(stream_of(rows, [Example("other", "yes")], labels=("yes",)))
    assert line == "stream 's', task 't': 'yes' is its only label: there is nothing to tell apart"


@pytest.mark.parametrize("labels", [("yes", "no"), ()])
def test_one_class_in_train(labels: tuple[str, ...]) -> None:
    (line,) = doubts(stream_of(TRAIN[1::2], TEST, labels))
    assert line == "stream 's', task 't': all 5 train rows have the label 'yes': nothing is learnt but to say so"


def test_no_test_split_is_read() -> None:
    def load(split: RawSplit) -> list[Example]:
        assert split == "train"
        return TRAIN

    assert doubts(Stream("s", (Task("t", "", "", ("yes", "no"), "here", load),))) == []


def test_empty_texts() -> None:
    rows = [Example(text, "yes" if i % 2 else "no") for i, text in enumerate(["", " \n\t", "a", "b", "c"])]
    (line,) = doubts(stream_of(rows, TEST))
    assert line == "stream 's', task 't': 2 of 5 train texts are empty: their answers can only be guessed"


def test_a_task_that_comes_again_is_doubted_once() -> None:
    (task,) = stream_of(TRAIN[1::2], TEST).tasks
    assert len(doubts(Stream("s", (task, task.again("t@2"))))) == 1
