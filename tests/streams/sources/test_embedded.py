"""The generated streams."""

from __future__ import annotations

import hashlib
import re

import pytest

from streams import Limits, Stream, named_stream, vocabulary
from streams.sources.wordings import EMBEDDED, EMBEDDED_TUNING, Wording

NAMES = ("embedded", "embedded-tuning")
FRAME = {"task", "dataset", "option", "answer"}
# (train, test) of the five tasks: keys of stored checkpoints and scores are made of these
HASHES = [
    ("893867af5f4d", "bc0040e22617"),
    ("203b41b9706a", "174d28698b7b"),
    ("5e86a5b9a64b", "f49f74fe43aa"),
    ("74f3a2a5a142", "fd3323023d32"),
    ("e372244925b4", "3baccc979b22"),
]


@pytest.mark.parametrize("name", NAMES)
def test_five_tasks_with_labels_of_their_own_and_no_shared_text(name: str) -> None:
    stream = named_stream(name)
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


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_function_of_its_seed(name: str) -> None:
    first, again, other = (named_stream(name, Limits(seed=s)) for s in (0, 0, 1))
    assert [t.train_hash for t in first.tasks] == [t.train_hash for t in again.tasks]
    assert all(a.train_hash != b.train_hash for a, b in zip(first.tasks, other.tasks, strict=True))


def test_its_content_is_what_stored_keys_are_made_of() -> None:
    assert [(t.train_hash[:12], t.test_hash[:12]) for t in named_stream("embedded").tasks] == HASHES


@pytest.mark.parametrize("name", NAMES)
def test_the_vocabulary_covers_the_texts(name: str) -> None:
    known = set(vocabulary())
    for task in named_stream(name).tasks:
        for example in task.read("train"):
            assert set(str(task.prompt(example.text)).split()) | set(example.label.split()) <= known


def test_the_vocabulary_begins_with_the_first_stream() -> None:
    words = vocabulary()
    assert hashlib.sha256(" ".join(words[:430]).encode()).hexdigest()[:12] == "35953c8a51fd"
    assert len(words) == len(set(words)) > 800


def words_of(stream: Stream) -> set[str]:
    """All words that a model can meet: prompts, texts and answers of all splits, without case and punctuation."""
    texts = [
        f"{task.prompt(example.text)} {example.label}"
        for task in stream.tasks
        for split in ("train", "dev", "test")
        for example in task.read(split)
    ]
    return {word for text in texts for word in re.findall(r"[a-z0-9]+", text.lower())}


def test_the_two_streams_have_no_word_in_common() -> None:
    one, other = (words_of(named_stream(name)) for name in NAMES)
    assert one & other == FRAME
    assert min(len(one), len(other)) > 400
    assert {word for wording in EMBEDDED for word in listed_words(wording)} <= one
    assert {word for wording in EMBEDDED_TUNING for word in listed_words(wording)} <= other


def listed_words(wording: Wording) -> list[str]:
    """The cue words, neutral words and labels as they are listed."""
    return [*wording.neutral, *wording.cues, *(word for cues in wording.cues.values() for word in cues)]


def test_the_two_streams_have_one_size() -> None:
    for one, other in zip(*(named_stream(name).tasks for name in NAMES), strict=True):
        sizes = [{s: len(t.read(s)) for s in ("train", "dev", "test")} for t in (one, other)]
        assert [s["train"] + s["dev"] for s in sizes] == [800, 800]
        # the rows drawn are as many; those of which train has the very text are left out of test
        assert abs(sizes[0]["test"] - sizes[1]["test"]) <= 10
        assert min(s["test"] for s in sizes) >= 190
    for tasks in (named_stream(name, Limits(max_train=600, max_test=180)).tasks for name in NAMES):
        assert {(len(t.read("train")), len(t.read("test"))) for t in tasks} == {(600, 180)}


def test_tasks_say_which_data_they_are() -> None:
    assert [t.dataset for t in named_stream("embedded-tuning").tasks] == [
        "generated/verdicts",
        "generated/shelves",
        "generated/errands",
        "generated/characters",
        "generated/hints",
    ]
