"""Slices of a data set that follow each other in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from pydantic import Field

from streams.scenarios.scenario import ScenarioOfOneTask
from streams.splits import Example, Split
from streams.stream import Stream


class TimeSlices(ScenarioOfOneTask):
    """A task cut into consecutive slices of equal size (as near as they go), with the same labels.

    What comes first is what has the earlier `time`, which the source's key of that name gives to each row, or else what
    stands first in the data. Train, dev and test are cut by themselves: slice k is scored on the k-th slice of the test
    split.
    """

    summary: ClassVar[str] = "consecutive slices of a data set, by the rows' time or place"

    name: Literal["time-slices"] = "time-slices"
    slices: int = Field(ge=2)

    def apply(self, stream: Stream) -> Stream:
        task = self.one_task(stream)
        tasks = []
        for number in range(1, self.slices + 1):
            source = f"{task.source}, slice {number} of {self.slices}"
            tasks.append(task.part(f"{task.name}-{number}", Slice(number, self.slices), source=source))
        return replace(stream, tasks=tuple(tasks))


@dataclass(frozen=True)
class Slice:
    """Chooses one of several consecutive slices, counted from 1."""

    number: int
    count: int

    def __call__(self, split: Split, examples: Sequence[Example]) -> Sequence[Example]:
        by_time = sorted(examples, key=_when)
        start = (self.number - 1) * len(by_time) // self.count
        end = self.number * len(by_time) // self.count
        rows = set()
        for example in by_time[start:end]:
            rows.add(example.row)
        # in the order in which they came, which decides what a cap leaves
        return [example for example in examples if example.row in rows]


def _when(example: Example) -> tuple[float, str, int]:
    # a source gives all rows numbers, or all of them texts such as 2021-05-01
    if isinstance(example.time, str):
        return 0.0, example.time, example.row
    return example.time or 0.0, "", example.row
