"""The tasks of a stream in another order, or several times."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from streams.scenarios.draws import in_drawn_order
from streams.scenarios.scenario import Scenario, Seed, occurrences
from streams.stream import Stream


class Reversed(Scenario):
    """The last task first."""

    summary: ClassVar[str] = "the last task first"

    name: Literal["reversed"] = "reversed"

    def apply(self, stream: Stream) -> Stream:
        return replace(stream, tasks=tuple(reversed(stream.tasks)))


class Permuted(Scenario):
    """The tasks in the order that a seed draws, by their names alone: however the stream lists them, it is the same."""

    summary: ClassVar[str] = "the tasks in an order that a seed draws"

    name: Literal["permuted"] = "permuted"
    seed: Seed = 0

    def apply(self, stream: Stream) -> Stream:
        tasks = []
        for name in in_drawn_order(stream.task_names, self.seed, "permuted"):
            tasks.append(self.task_of(stream, name))
        return replace(stream, tasks=tuple(tasks))


class Order(Scenario):
    """The tasks that are named, in this order; one that is named again comes again (see `occurrences`)."""

    summary: ClassVar[str] = "the tasks that are named, in this order and as often"

    name: Literal["order"] = "order"
    tasks: tuple[str, ...] = Field(min_length=1)

    def apply(self, stream: Stream) -> Stream:
        tasks = []
        for name in self.tasks:
            tasks.append(self.task_of(stream, name))
        return replace(stream, tasks=occurrences(tasks))


class Repeated(Scenario):
    """The whole stream several times over (see `occurrences`)."""

    summary: ClassVar[str] = "the whole stream several times over"

    name: Literal["repeated"] = "repeated"
    times: int = Field(ge=2, le=10_000)

    def apply(self, stream: Stream) -> Stream:
        return replace(stream, tasks=occurrences(stream.tasks * self.times))
