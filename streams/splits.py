"""The examples of a task: which rows are used, and how the dev split is carved from train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from streams.prompts import Prompt
from streams.text import bare_text, half_of, normal_text, seeded_rank

Split = Literal["train", "dev", "test"]
RawSplit = Literal["train", "test"]
# what a model learns from a task: to answer what is asked about a text, or the text itself
Objective = Literal["answer", "text"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")


@dataclass(frozen=True)
class Example:
    """One row of a data set: the text to read and the label text to answer.

    `row` counts the rows of the raw split from 1 (a dev example has its row in raw train), so that a row can be pointed
    at. It is no part of what the example is: hashes and comparisons leave it out, as they do `time`, by which a stream may
    be cut into slices. `prompt` is how an example is asked that is a guest in another task's train split.
    """

    text: str
    label: str
    row: int = field(default=0, compare=False)
    time: float | str | None = field(default=None, compare=False)
    prompt: Prompt | None = None


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
        if self.row_half is not None and half_of(text) != self.row_half:
            return False
        # most streams skip nothing, and a bare text takes longer to make than all else here
        return not self.skip_texts or bare_text(text) not in self.skip_texts


def in_seeded_order(examples: Sequence[Example], seed: int) -> list[Example]:
    """The examples in the order of a seed. Equal texts stand in a fixed order too, whatever order they came in."""

    def rank(example: Example) -> tuple[str, str, str]:
        return seeded_rank(example.text, seed), example.text, example.label

    return sorted(examples, key=rank)


def carve_dev(rows: Sequence[Example], fraction: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Split raw train rows into (train, dev), both in the seeded order. Rows with one text stay on one side.

    The rank of a row depends on its own text and the seed alone, so adding rows never moves another between sides
    except at the boundary.
    """
    ranked = in_seeded_order(rows, seed)
    # a share of the distinct texts, not of the rows: a text that comes twice must not be learnt and tested on
    distinct = list(dict.fromkeys(normal_text(example.text) for example in ranked))
    # of a single text nothing can be held out that is not trained on
    if len(distinct) < 2 or fraction <= 0:
        return ranked, []
    held_out = set(distinct[: max(1, round(len(distinct) * fraction))])
    train: list[Example] = []
    dev: list[Example] = []
    for example in ranked:
        if normal_text(example.text) in held_out:
            dev.append(example)
        else:
            train.append(example)
    return train, dev
