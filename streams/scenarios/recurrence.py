"""Tasks that come again, the more rarely the longer ago they were trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from streams.scenarios.draws import draw, weighted_choice
from streams.scenarios.scenario import Scenario, Seed, occurrences
from streams.stream import Stream
from streams.task import Task


class Recurrence(Scenario):
    """Every `every` positions the stream's next task is new; at the others one of the tasks that came comes again.

    With `law: power` a task that was last trained at position s comes again at position t with a probability that is
    proportional to (t - s)^(-alpha): the environment of arXiv 2401.10393, in which the probability of meeting a task falls as
    a power of the time since it was last met. The published constants were not found, nor how often new tasks come: alpha = 1
    and every second position are ours. `exponential`: e^(-alpha (t - s)); `uniform`: all tasks alike, the comparison. What
    comes at a position depends on the seed and the positions before it.

    See `occurrences` for what a task that comes again means for the scores. Joint training sees each as often as it comes.
    """

    summary: ClassVar[str] = (
        "tasks come again, with a probability that falls with the time since they were last trained"
    )
    paper: ClassVar[str] = "2401.10393"

    name: Literal["recurrence"] = "recurrence"
    positions: int = Field(ge=1, le=10_000)
    law: Literal["power", "exponential", "uniform"] = "power"
    alpha: float = Field(1, ge=0, le=100)
    every: int = Field(2, ge=1, description="a new task comes every so many positions, until all have come")
    seed: Seed = 0

    def apply(self, stream: Stream) -> Stream:
        last_new = 1 + self.every * (len(stream.tasks) - 1)
        if self.positions < last_new:
            raise self.problem(
                stream,
                f"positions: {self.positions}, but the last of {len(stream.tasks)} tasks comes first at position "
                f"{last_new}; `first` takes a beginning",
            )
        chosen: list[Task] = []
        last_trained: list[int] = []
        for position in range(1, self.positions + 1):
            num_seen = len(last_trained)
            # by the position alone, whatever was drawn before
            is_new_due = (position - 1) % self.every == 0 and num_seen < len(stream.tasks)
            if is_new_due:
                index = num_seen
                last_trained.append(position)
            else:
                index = self._comes_again(position, last_trained)
                last_trained[index] = position
            chosen.append(stream.tasks[index])
        return replace(stream, tasks=occurrences(chosen))

    def _comes_again(self, position: int, last_trained: Sequence[int]) -> int:
        """Which of the tasks that came comes at a position; `last_trained` has the position at which each came last."""
        weights = []
        for last in last_trained:
            weights.append(self.weight(position - last))
        return weighted_choice(weights, draw(self.seed, "recurrence", position))

    def weight(self, age: int) -> float:
        """What the probability of a task is proportional to that was last trained `age` positions ago."""
        if self.law == "power":
            return float(age**-self.alpha)
        if self.law == "exponential":
            return math.exp(-self.alpha * (age - 1))
        return 1.0
