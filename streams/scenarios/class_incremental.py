"""The class-incremental scenario: tasks that bring new classes of one data set in turn."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from streams.label_splits import tasks_of_labels
from streams.names import unknown_name
from streams.scenarios.scenario import Scenario, Seed
from streams.stream import Stream
from streams.task import Task


class ClassIncremental(Scenario):
    """Cuts a task, or every task of a stream in turn, into tasks of `labels_per_task` labels each.

    The labels come as the task lists them, in the order that `seed` draws, or in `order`. The last task takes those that
    remain too: of one label there is nothing to learn. The keys `labels_per_task` and `class_order` of a stream do the
    same to all of its tasks.
    """

    summary: ClassVar[str] = "tasks that bring k new classes of a data set each"
    paper: ClassVar[str] = "2403.09066"

    name: Literal["class-incremental"] = "class-incremental"
    task: str | None = Field(None, description="the task that is cut; by default every one, and the others stay out")
    labels_per_task: int = Field(ge=2)
    seed: Seed | None = Field(None, description="draws the order of the labels")
    order: tuple[str, ...] | None = Field(None, description="the labels in the order in which they come")

    @model_validator(mode="after")
    def _one_order(self) -> ClassIncremental:
        if self.seed is not None and self.order is not None:
            raise ValueError("give one of seed, which draws an order, and order")
        return self

    def apply(self, stream: Stream) -> Stream:
        tasks = stream.tasks
        if self.task is not None:
            tasks = (self.task_of(stream, self.task),)
        if self.order is not None:
            if len(tasks) > 1:
                raise self.problem(
                    stream, f"`order` is of one task: give `task`, one of {', '.join(stream.task_names)}"
                )
            self._check_order(stream, tasks[0], self.order)
        seed = None
        if self.seed is not None:
            seed = int(self.seed)
        parts: list[Task] = []
        for task in tasks:
            try:
                parts += tasks_of_labels(task, self.labels_per_task, seed, self.order)
            except ValueError as error:
                # a configuration may have several streams with a task of this name
                raise self.problem(stream, str(error)) from None
        return replace(stream, tasks=tuple(parts))

    def _check_order(self, stream: Stream, task: Task, order: tuple[str, ...]) -> None:
        for label in order:
            if label not in task.labels:
                raise self.problem(stream, "order: " + unknown_name("label", label, task.labels))
        for label in task.labels:
            if order.count(label) != 1:
                raise self.problem(
                    stream, f"order: {label!r} is there {order.count(label)} times; each label comes once"
                )
