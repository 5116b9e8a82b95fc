"""A part of each task's examples, several times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from pydantic import Field

from streams.scenarios.scenario import Scenario
from streams.splits import Example, Split
from streams.stream import Stream
from streams.task import Task


class Subset(Scenario):
    """A share of each task's train split, trained on for `epochs`: fraction 0.25 and 4 epochs see as many texts as one pass.

    A properly sized subset for several epochs is what arXiv 2406.14833 takes against the stability gap. Which rows are in it
    is chosen by the stream's `seed`; a larger share has those of a smaller one. `epochs` stands in for `training.epochs`, for
    all methods alike; what `training.epochs_per_task` says of a task goes before. Dev and test splits stay whole.
    """

    summary: ClassVar[str] = "a fraction of each task's train split, for several epochs"
    paper: ClassVar[str] = "2406.14833"

    name: Literal["subset"] = "subset"
    fraction: float = Field(gt=0, le=1)
    epochs: int | None = Field(None, ge=1, description="instead of training.epochs")

    def apply(self, stream: Stream) -> Stream:
        def cut(task: Task) -> Task:
            select = Share(self.fraction, task.limits.max_train)
            epochs = self.epochs or task.epochs
            return task.part(task.name, select, first_name=task.first_name, epochs=epochs)

        return replace(stream, tasks=tuple(map(cut, stream.tasks)))


@dataclass(frozen=True)
class Share:
    """Chooses the first share of the train examples that a task would have had, of which there are `most` at most."""

    fraction: float
    most: int | None

    def __call__(self, split: Split, examples: Sequence[Example]) -> Sequence[Example]:
        if split != "train":
            return examples
        whole = examples[: self.most]
        # rounded first: 0.07 x 100 is a little more than 7 as a float, and would be 8
        return whole[: math.ceil(round(self.fraction * len(whole), 6))]
