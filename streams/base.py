"""Task and Stream: what is learnt, in which order, and how its content is named."""

from __future__ import annotations

import hashlib
import json
import string
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")


class SealedSplit(ValueError):
    """The test split of a sealed task was asked for: tuning must not see it."""


@dataclass(frozen=True)
class Example:
    """One row: the text to read and the label text to answer.

    `row` counts the rows of the raw split from 1 (a dev example has its row in raw train), so that a row can be pointed
    at. It is no part of what the example is: hashes and comparisons leave it out.
    """

    text: str
    label: str
    row: int = field(default=0, compare=False)


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
    `seed`; the choice depends on nothing else than the seed and each row's own text. `row_half` (0 or 1) keeps one
    half of the rows of raw train and raw test, by each row's own text alone: the two halves never share a text. Rows
    whose text is among `skip_texts` (see `bare_text`) are not used.
    """

    max_train: int | None = None
    max_dev: int | None = None
    max_test: int | None = None
    dev_fraction: float = 0.1
    seed: int = 0
    row_half: int | None = None
    skip_texts: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.row_half not in (None, 0, 1):
            raise ValueError(f"row_half is {self.row_half!r}: one of 0, 1, None")

    def keeps(self, text: str) -> bool:
        """Whether a row with this text is used: it is in the chosen half and not to be skipped."""
        if self.row_half is None and not self.skip_texts:
            return True
        bare = bare_text(text)
        half = hashlib.sha256(f"half\n{bare}".encode()).digest()[-1] % 2
        return self.row_half in (None, half) and bare not in self.skip_texts


@dataclass(frozen=True, eq=False)
class Task:
    """A named set of train, dev and test examples that is scored by exact match of the label text.

    `load` reads a raw split ("train" or "test") and is called on first use only, so that work which may not see the
    test split never touches it. Rows whose label is not among `labels` are left out and counted in `left_out`.

    `dataset` says which data set this is, wherever it lies (default: the name). A `sealed` task refuses its test split;
    another one calls `on_test_read` once, right before it loads that split.
    """

    name: str
    category: str
    instruction: str
    labels: tuple[str, ...]
    source: str
    load: Callable[[Literal["train", "test"]], Sequence[Example]] = field(repr=False)
    limits: Limits = Limits()
    dataset: str = ""
    sealed: bool = False
    on_test_read: Callable[[Task], None] | None = field(default=None, repr=False)
    scorer: str = "exact-match"

    def __post_init__(self) -> None:
        object.__setattr__(self, "dataset", self.dataset or self.name)
        if not self.labels:
            raise ValueError(f"task {self.name!r}: the label set is empty ({self.source})")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"task {self.name!r}: the label set names a label twice ({self.source})")

    def read(self, split: Split) -> tuple[Example, ...]:
        """The examples of a split, in a fixed order. Raises ValueError where there are none."""
        examples = self._test if split == "test" else self._train_and_dev[{"train": 0, "dev": 1}[split]]
        if not examples:
            raise ValueError(f"task {self.name!r}: the {split} split is empty ({self.source})")
        return examples

    @cached_property
    def _raw_train(self) -> tuple[list[Example], int]:
        return self._usable(self.load("train"))

    @cached_property
    def _raw_test(self) -> tuple[list[Example], int]:
        if self.sealed:
            raise SealedSplit(f"task {self.name!r}: the test split is sealed while tuning")
        if self.on_test_read is not None:
            self.on_test_read(self)
        return self._usable(self.load("test"))

    @cached_property
    def _train_and_dev(self) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
        train, dev = carve_dev(self._raw_train[0], self.limits.dev_fraction, self.limits.seed)
        return tuple(train[: self.limits.max_train]), tuple(dev[: self.limits.max_dev])

    @cached_property
    def _test(self) -> tuple[Example, ...]:
        ranked = sorted(self._raw_test[0], key=lambda e: _rank(e, self.limits.seed))
        return tuple(ranked[: self.limits.max_test])

    def _usable(self, rows: Sequence[Example]) -> tuple[list[Example], int]:
        """The numbered rows that are to be used and have a known label, and how many have another."""
        numbered = [Example(e.text, e.label, number) for number, e in enumerate(rows, 1) if self.limits.keeps(e.text)]
        kept = [e for e in numbered if e.label in self.labels]
        return kept, len(numbered) - len(kept)

    @property
    def has_dev(self) -> bool:
        """Whether anything was held out of train."""
        return bool(self._train_and_dev[1])

    def dropped_rows(self, split: Literal["train", "test"]) -> int:
        """How many rows of the raw split have a label outside the label set."""
        return (self._raw_train if split == "train" else self._raw_test)[1]

    def prompt(self, text: str) -> Prompt:
        """The published prompt of the 15-task benchmark (O-LoRA, arXiv 2310.14152; used by arXiv 2406.17245)."""
        head = f"Task:{self.category}\nDataset:{self.name}\n" if self.category else ""
        return Prompt(f"{head}{self.instruction}Option: {', '.join(self.labels)} \n", text, "\nAnswer:")

    @cached_property
    def train_hash(self) -> str:
        """SHA-256 of all that training on this task can see: wording, labels and train examples, in order."""
        return self.split_hash("train")

    @cached_property
    def test_hash(self) -> str:
        """SHA-256 of all that scoring on this task can see. Reads the test split."""
        return self.split_hash("test")

    def split_hash(self, split: Split) -> str:
        """SHA-256 of wording, labels and the examples of a split. Keys of stored checkpoints are made of it."""
        content = [self.name, self.category, self.instruction, list(self.labels)]
        rows = [[e.text, e.label] for e in self.read(split)]
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

    def first(self, count: int) -> Stream:
        """The stream of the first `count` tasks."""
        if not 1 <= count <= len(self.tasks):
            raise ValueError(f"stream {self.name!r}: the first {count} tasks of {len(self.tasks)} are asked for")
        return replace(self, tasks=self.tasks[:count])

    def sealed(self) -> Stream:
        """The same stream for tuning: every task refuses its test split."""
        return replace(self, tasks=tuple(replace(task, sealed=True) for task in self.tasks))

    def watched(self, on_test_read: Callable[[Task], None]) -> Stream:
        """The same stream; each task calls `on_test_read` before it first loads its test split."""
        return replace(self, tasks=tuple(replace(task, on_test_read=on_test_read) for task in self.tasks))

    def manifest(self) -> list[dict[str, object]]:
        """What the data is: a row a task with sizes, hashes, rows left out and where it came from.

        Reads all splits; of a sealed task all but test, of which its row then says nothing.
        """
        return [_manifest_row(task) for task in self.tasks]


def _manifest_row(task: Task) -> dict[str, object]:
    raw: tuple[Literal["train", "test"], ...] = ("train",) if task.sealed else ("train", "test")
    sizes = {"train": len(task.read("train")), "dev": len(task.read("dev")) if task.has_dev else 0}
    row: dict[str, object] = {
        "task": task.name,
        "dataset": task.dataset,
        "source": task.source,
        "labels": list(task.labels),
        "sizes": sizes if task.sealed else {**sizes, "test": len(task.read("test"))},
        "dropped_rows": {split: task.dropped_rows(split) for split in raw},
        "train_sha256": task.train_hash,
        "dev_sha256": task.split_hash("dev") if task.has_dev else None,
    }
    return row if task.sealed else {**row, "test_sha256": task.test_hash}


def half_of_labels(task: Task, half: int, seed: int = 0) -> Task:
    """The task with one half (0 or 1) of its labels. The choice depends on the set of labels and the seed alone."""
    if half not in (0, 1):
        raise ValueError(f"task {task.name!r}: half {half!r} of its labels is asked for: one of 0, 1")
    if len(task.labels) < 4:
        raise ValueError(
            f"task {task.name!r} has {len(task.labels)} labels: a half would be a task of one label, nothing to learn"
        )
    ranked = sorted(task.labels, key=lambda label: (hashlib.sha256(f"{seed}\n{label}".encode()).digest(), label))
    middle = len(ranked) // 2
    chosen = ranked[middle:] if half else ranked[:middle]
    return replace(task, labels=tuple(label for label in task.labels if label in chosen))


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


class _Punctuation(dict[int, int | None]):
    """For `str.translate`: drops what Unicode or ASCII calls punctuation."""

    def __missing__(self, code: int) -> int | None:
        char = chr(code)
        drop = char in string.punctuation or unicodedata.category(char).startswith("P")
        return self.setdefault(code, None if drop else code)


_PUNCTUATION = _Punctuation()


def bare_text(text: str) -> str:
    """Lower case, without punctuation, with single spaces: two rows with one bare text hold the same text.

    A text of punctuation alone keeps it, so that `!!!` and `:)` remain two.
    """
    lower = _normal_text(text)
    return " ".join(lower.translate(_PUNCTUATION).split()) or lower


def _normal_text(text: str) -> str:
    return " ".join(text.lower().split())


def _rank(example: Example, seed: int) -> tuple[str, str, str]:
    text = _normal_text(example.text)
    return hashlib.sha256(f"{seed}\n{text}".encode()).hexdigest(), example.text, example.label
