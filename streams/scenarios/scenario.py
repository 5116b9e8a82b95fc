"""What a scenario is: settings that a user writes, and the stream that it makes of another one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field

from streams.names import unknown_name
from streams.sources.source import SourceSettings
from streams.stream import Stream
from streams.task import Task

BY_SEED = "by-seed"


def _is_seed(value: int | str) -> int | str:
    if value == BY_SEED or (isinstance(value, int) and value >= 0):
        return value
    raise ValueError(f"{value!r} is neither {BY_SEED} nor a number from 0")


# what draws: a number, or that each seed of the experiment draws for its own runs
Seed = Annotated[int | str, AfterValidator(_is_seed)]


class Scenario(SourceSettings):
    """Makes a stream of a stream. The fields of a subclass are its keys in a YAML file.

    A pure function of the stream, the settings and, where there is one, the seed: what comes at position t depends on the
    seed and t, never on how many positions follow. Nothing here reads a test split: what a task has of it is chosen when
    the split is read.
    """

    # one sentence for a list of scenarios
    summary: ClassVar[str]
    # the arXiv number of the paper that a scenario is from; empty where it is common usage
    paper: ClassVar[str] = ""

    name: str

    def located(self) -> Self:
        """The same with full paths, so that a worker on another machine needs no variable of this one."""
        return self

    def for_seed(self, seed: int) -> Self:
        """The scenario of the runs of a seed: the same for all, unless its draws go by the seed."""
        if getattr(self, "seed", None) != BY_SEED:
            return self
        return self.model_copy(update={"seed": seed})

    def applied(self, stream: Stream) -> Stream:
        """What `apply` makes. Raises ValueError too where only a run knows the seed."""
        if getattr(self, "seed", None) == BY_SEED:
            raise self.problem(stream, f"seed: {BY_SEED!r} needs the seed of a run")
        return self.apply(stream)

    def apply(self, stream: Stream) -> Stream:
        """The stream of the same name that the scenario makes. Raises ValueError where it cannot be made of this one."""
        raise NotImplementedError

    def problem(self, stream: Stream, what: str) -> ValueError:
        """The error that says which stream and scenario something is wrong with."""
        return ValueError(f"stream {stream.name!r}: scenario {self.name!r}: {what}")

    def task_of(self, stream: Stream, name: str) -> Task:
        """The stream's task of that name. Raises ValueError where there is none."""
        for task in stream.tasks:
            if task.name == name:
                return task
        raise self.problem(stream, unknown_name("task", name, stream.task_names))


class ScenarioOfOneTask(Scenario):
    """Cuts one task of a stream into several; the others are left out."""

    task: str | None = Field(None, description="the task that is cut; needed where the stream has several")

    def one_task(self, stream: Stream) -> Task:
        """The task that is cut."""
        if self.task is not None:
            return self.task_of(stream, self.task)
        if len(stream.tasks) > 1:
            raise self.problem(stream, f"`task` says which one is cut: one of {', '.join(stream.task_names)}")
        return stream.tasks[0]

    def labels_of(self, stream: Stream) -> tuple[str, ...]:
        """The labels of the task that is cut. Raises ValueError where answers are open."""
        task = self.one_task(stream)
        if not task.labels:
            raise self.problem(stream, f"task {task.name!r} has no label set to be cut by")
        return task.labels


def occurrences(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """The tasks in this order, where one may come again: the second time `dbpedia` comes it is named `dbpedia@2`.

    Each occurrence is a task of its own, with a turn and a column in the accuracy matrix, so the t-th task is the t-th
    column as everywhere. All occurrences have one content: the same examples in the same wording, and one test split. So
    a state is scored on it once, and the score stands in every column of the task.
    """
    times: Counter[str] = Counter()
    named = []
    for task in tasks:
        times[task.name] += 1
        # the first keeps its name: up to there it is the stream in which it comes once
        if times[task.name] > 1:
            task = task.again(f"{task.name}@{times[task.name]}")
        named.append(task)
    return tuple(named)
