"""Task and Stream: what is learnt, in which order, and how its content is named."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")


@dataclass(frozen=True)
class Example:
    """One row: the text to read and the label text to answer."""

    text: str
    label: str


@dataclass(frozen=True)
class Prompt:
    """A prompt in three parts, so that a model with little room shortens the middle and keeps the question whole."""

    prefix: str
    text: str
    suffix: str

    def __str__(self) -> str:
        return self.prefix + self.text + self.suffix


@dataclass(frozen=True)
class Limits:
    """How much of each split is used, and how the dev split is carved from train.

    `max_*` caps a split's examples (None: all). `dev_fraction` of the train rows become the dev split, chosen by
    `seed`; the choice depends on nothing else than the seed and each row's own text.
    """

    max_train: int | None = None
    max_dev: int | None = None
    max_test: int | None = None
    dev_fraction: float = 0.1
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Task:
    """A named set of train, dev and test examples that is scored by exact match of the label text.

    `load` reads a raw split ("train" or "test") and is called on first use only, so that work which may not see the
    test split never touches it. Rows whose label is not among `labels` are left out and counted in `left_out`.
    """

    name: str
    category: str
    instruction: str
    labels: tuple[str, ...]
    source: str
    load: Callable[[Literal["train", "test"]], Sequence[Example]] = field(repr=False)
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if not self.labels:
            raise ValueError(f"task {self.name!r}: the label set is empty ({self.source})")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"task {self.name!r}: the label set names a label twice ({self.source})")

    def read(self, split: Split) -> tuple[Example, ...]:
        """The examples of a split, in a fixed order. Raises ValueError where there are none."""
        examples = {"train": self._train_and_dev[0], "dev": self._train_and_dev[1]}.get(split)
        if examples is None:
            examples = self._test
        if not examples:
            raise ValueError(f"task {self.name!r}: the {split} split is empty ({self.source})")
        return examples

    @cached_property
    def _raw_train(self) -> tuple[list[Example], int]:
        return self._in_label_set(self.load("train"))

    @cached_property
    def _raw_test(self) -> tuple[list[Example], int]:
        return self._in_label_set(self.load("test"))

    @cached_property
    def _train_and_dev(self) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
        train, dev = carve_dev(self._raw_train[0], self.limits.dev_fraction, self.limits.seed)
        return tuple(train[: self.limits.max_train]), tuple(dev[: self.limits.max_dev])

    @cached_property
    def _test(self) -> tuple[Example, ...]:
        ranked = sorted(self._raw_test[0], key=lambda e: _rank(e, self.limits.seed))
        return tuple(ranked[: self.limits.max_test])

    def _in_label_set(self, rows: Sequence[Example]) -> tuple[list[Example], int]:
        kept = [row for row in rows if row.label in self.labels]
        return kept, len(rows) - len(kept)

    @property
    def has_dev(self) -> bool:
        """Whether anything was held out of train."""
        return bool(self._train_and_dev[1])

    def left_out(self, split: Literal["train", "test"]) -> int:
        """How many rows of the raw split have a label outside the label set."""
        return (self._raw_train if split == "train" else self._raw_test)[1]

    def prompt(self, text: str) -> Prompt:
        """The published prompt of the 15-task benchmark (O-LoRA, arXiv 2310.14152; used by arXiv 2406.17245)."""
        head = f"Task:{self.category}\nDataset:{self.name}\n" if self.category else ""
        return Prompt(f"{head}{self.instruction}Option: {', '.join(self.labels)} \n", text, "\nAnswer:")

    @cached_property
    def train_hash(self) -> str:
        """SHA-256 of all that training on this task can see: wording, labels and train examples, in order."""
        return self._hash(self.read("train"))

    @cached_property
    def test_hash(self) -> str:
        """SHA-256 of all that scoring on this task can see. Reads the test split."""
        return self._hash(self.read("test"))

    def _hash(self, examples: Iterable[Example]) -> str:
        content = [self.name, self.category, self.instruction, list(self.labels)]
        rows = [[e.text, e.label] for e in examples]
        return hashlib.sha256(json.dumps([content, rows]).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Stream:
    """An ordered list of tasks."""

    name: str
    tasks: tuple[Task, ...]

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError(f"stream {self.name!r} has no tasks")
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError(f"stream {self.name!r} names a task twice: {', '.join(names)}")

    def labels_until(self, count: int) -> tuple[str, ...]:
        """The union of the label texts of the first `count` tasks, in order of first appearance."""
        return tuple(dict.fromkeys(label for task in self.tasks[:count] for label in task.labels))

    def manifest(self) -> list[dict[str, object]]:
        """What the data is: one row a task with sizes, hashes, rows left out and where it came from. Reads all splits."""
        return [
            {
                "task": task.name,
                "source": task.source,
                "labels": list(task.labels),
                "sizes": {
                    "train": len(task.read("train")),
                    "dev": len(task.read("dev")) if task.has_dev else 0,
                    "test": len(task.read("test")),
                },
                "left_out": {"train": task.left_out("train"), "test": task.left_out("test")},
                "train_sha256": task.train_hash,
                "test_sha256": task.test_hash,
            }
            for task in self.tasks
        ]


def carve_dev(rows: Sequence[Example], fraction: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Split raw train rows into (train, dev), both in the seeded order. Rows with one text stay on one side.

    The place of a row depends on its own text and the seed alone, so adding rows never moves another between sides
    except at the boundary.
    """
    ranked = sorted(rows, key=lambda e: _rank(e, seed))
    texts = list(dict.fromkeys(_normal_text(e.text) for e in ranked))
    if len(texts) < 2:
        return ranked, []
    share = max(1, round(len(texts) * fraction)) if fraction > 0 else 0
    held_out = set(texts[:share])
    dev = [e for e in ranked if _normal_text(e.text) in held_out]
    return [e for e in ranked if _normal_text(e.text) not in held_out], dev


def normalise_answer(text: str) -> str:
    """Lower case, without punctuation, with single spaces: how answers are compared in the published evaluation."""
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(bare.split())


def _normal_text(text: str) -> str:
    return " ".join(text.lower().split())


def _rank(example: Example, seed: int) -> tuple[str, str, str]:
    text = _normal_text(example.text)
    return hashlib.sha256(f"{seed}\n{text}".encode()).hexdigest(), example.text, example.label
