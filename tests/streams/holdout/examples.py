"""Two sides of a search, and how their refusal reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest

from streams import (
    Example,
    HoldoutViolation,
    Level,
    Limits,
    Stream,
    Task,
    prove,
)

LABELS = ("yes", "no")


DEFAULT = Limits()


NO_DEV = Limits(dev_fraction=0)


def texts(topic: str, count: int = 30) -> list[str]:
    """Texts that have no five words in common with one another."""
    return [" ".join(f"{topic}{i}{letter}" for letter in "abcdefgh") for i in range(count)]


def task(
    name: str,
    train: Sequence[str],
    test: Sequence[str] = (),
    limits: Limits = DEFAULT,
    labels: tuple[str, ...] = LABELS,
    dataset: str = "",
) -> Task:
    def load(split: Literal["train", "test"]) -> list[Example]:
        if split == "test" and not test:
            raise AssertionError("the test split was loaded")
        return [Example(text, labels[i % len(labels)]) for i, text in enumerate(train if split == "train" else test)]

    return Task(name, "", "", labels, "here", load, limits, dataset)


def tuning(train: Sequence[str], limits: Limits = NO_DEV, dataset: str = "") -> Stream:
    """One task whose loader fails where the test split is asked for."""
    return Stream("x", (task("a", train, limits=limits, dataset=dataset),))


def evaluation(dataset: str = "", limits: Limits = DEFAULT) -> Stream:
    return Stream("y", (task("b", texts("b"), texts("c", 10), limits, dataset=dataset),))


def refusal(level: Level, ours: Stream, theirs: Stream, allowed_related_pairs: Sequence[Sequence[str]] = ()) -> str:
    with pytest.raises(HoldoutViolation) as caught:
        prove(level, [ours], [theirs], allowed_related_pairs)
    assert "\n" not in str(caught.value)
    return str(caught.value)
