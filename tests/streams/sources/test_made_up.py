"""Generated tasks of made-up words."""

from __future__ import annotations

import re

from streams import Limits, Stream, find_leaks, named_stream, vocabulary
from streams.sources.made_up import made_up_wordings

# (train, test) of the first and the last task: keys of stored checkpoints and scores are made of these
HASHES = [("0fa6de4cac67", "bc60a58dc25b"), ("44990ec47da6", "51f2a34e0ddd")]
FRAME = {"task", "dataset", "option", "answer"}


def words_of(stream: Stream, index: int) -> set[str]:
    """All words that a model can meet in a task: prompts, texts and answers of all splits, without case and punctuation."""
    task = stream.tasks[index]
    words: set[str] = set()
    for split in ("train", "dev", "test"):
        for example in task.read(split):  # type: ignore[arg-type]
            words.update(re.findall("[a-z0-9]+", f"{task.prompt(example.text)} {example.label}".lower()))
    return words


def test_fifteen_tasks_without_a_common_word() -> None:
    stream = named_stream("embedded-long")
    assert len(stream.tasks) == 15
    seen = {word.lower() for text in vocabulary() for word in re.findall("[A-Za-z0-9]+", text)}
    assert {"reviews", "verdicts", "cheerful", "fearless", *FRAME} <= seen
    for index, task in enumerate(stream.tasks):
        own = words_of(stream, index)
        assert own & seen == FRAME
        # the cue words alone are twelve for each class
        assert len(own) > 12 * len(task.labels) + 12
        seen |= own
    assert [len(task.labels) for task in stream.tasks] == 3 * [2, 4, 5, 4, 3]


def test_each_split_has_every_class_and_no_text_of_another() -> None:
    stream = named_stream("embedded-long")
    assert find_leaks(stream) == []
    for task in stream.tasks:
        assert len(task.read("train")) + len(task.read("dev")) == 800
        test = task.read("test")
        assert 180 <= len(test) <= 200
        for label in task.labels:
            assert sum(example.label == label for example in test) >= 30


def test_a_text_has_two_cue_words_of_its_class() -> None:
    task = named_stream("embedded-long").tasks[2]
    classes_of: dict[str, set[str]] = {}
    for example in task.read("train"):
        for word in example.text.split():
            classes_of.setdefault(word, set()).add(example.label)
    own = [word for word, classes in classes_of.items() if len(classes) == 1]
    assert len(own) == 12 * len(task.labels)
    for example in task.read("test"):
        assert sum(word in own for word in example.text.split()) == 2


def test_it_is_a_function_of_its_seed() -> None:
    tasks = named_stream("embedded-long").tasks
    assert [(t.train_hash[:12], t.test_hash[:12]) for t in (tasks[0], tasks[14])] == HASHES
    other = named_stream("embedded-long", Limits(seed=1)).tasks
    assert all(a.train_hash != b.train_hash for a, b in zip(tasks, other, strict=True))
    # the sentences change with a user's seed, the words do not
    assert [t.labels for t in tasks] == [t.labels for t in other]


def test_more_tasks_leave_the_first_ones_as_they_are_and_no_word_is_taken() -> None:
    assert made_up_wordings(20, "s", set())[:4] == made_up_wordings(4, "s", set())
    first = made_up_wordings(1, "s", set())[0]
    again = made_up_wordings(1, "s", {first.name, first.neutral[3]})[0]
    assert first.name != again.name
    assert first.neutral[3] not in {*again.neutral, *again.cues}
    assert made_up_wordings(1, "t", set())[0].name != first.name
