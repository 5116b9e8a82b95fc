"""Small tasks and streams that the tests of this folder share."""

from __future__ import annotations

from typing import Literal

from streams import (
    Example,
    Limits,
    Stream,
    Task,
)

ROWS = [Example(f"text number {i}", "yes" if i % 2 else "no") for i in range(40)]


DEFAULT = Limits()


def task(
    rows: list[Example] = ROWS, name: str = "t", limits: Limits = DEFAULT, labels: tuple[str, ...] = ("yes", "no")
) -> Task:
    def load(split: Literal["train", "test"]) -> list[Example]:
        return rows if split == "train" else rows[:5]

    return Task(name, "Cat", "Well? ", labels, "here", load, limits)


class Loads:
    """A loader that writes down what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, split: Literal["train", "test"]) -> list[Example]:
        self.asked.append(split)
        return ROWS if split == "train" else ROWS[:5]

    def stream(self) -> Stream:
        return Stream("s", tuple(Task(name, "", "", ("yes", "no"), "here", self) for name in ("a", "b")))
