"""Small streams that the tests of scenarios share, and draws written out again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from streams import Example, Limits, RawSplit, Split, Stream, Task

# all rows are train or test rows, so that what is in a split can be counted
WHOLE = Limits(dev_fraction=0)


class Asked:
    """A loader that writes down which splits it was asked for. Its test rows are the first ones with other texts."""

    def __init__(self, rows: Sequence[Example]) -> None:
        self.rows = rows
        self.splits: list[str] = []

    def __call__(self, split: RawSplit) -> list[Example]:
        self.splits.append(split)
        if split == "train":
            return list(self.rows)
        return [Example(f"test of {row.text}", row.label, time=row.time) for row in self.rows]


def rows_of(labels: Sequence[str], each: int, word: str = "row") -> list[Example]:
    """So many rows of each label, in turn."""
    return [Example(f"{word} {i} {label}", label) for i in range(each) for label in labels]


def task_of(labels: str = "a b c d", each: int = 3, name: str = "t", limits: Limits = WHOLE) -> Task:
    """A task of labels that are words."""
    names = tuple(labels.split())
    return Task(name, "Cat", "Well? ", names, "here", Asked(rows_of(names, each, name)), limits)


def stream_of(*tasks: Task) -> Stream:
    return Stream("s", tasks)


def texts(task: Task, split: Split = "train") -> list[str]:
    return sorted(example.text for example in task.read(split))


def digest(*parts: object) -> str:
    return hashlib.sha256("\n".join(str(part) for part in parts).encode()).hexdigest()


def uniform(*parts: object) -> float:
    """What `draw` says, from the SHA-256 of the parts, a line each: its first 13 hexadecimal digits after the point."""
    return int(digest(*parts)[:13], 16) / 2**52
