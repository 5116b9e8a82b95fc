"""Each task's train split mixed with examples of a general corpus or of other tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from streams.catalogue import resolve_source
from streams.names import unknown_name
from streams.scenarios.draws import draw
from streams.scenarios.scenario import Scenario, Seed
from streams.sources.source import Source
from streams.splits import Example
from streams.stream import Stream
from streams.task import Task


class Mixture(Scenario):
    """A share of what a task is trained on are guests: train examples of a general stream, or of other tasks of this one.

    To n examples of the task come n x share / (1 - share) guests, so a mixed task takes longer. They are drawn by the seed
    from all train examples there are, each asked as its own task asks and never twice in one task. A mixture like the
    data of pre-training is what arXiv 2406.14833 takes against the stability gap. Dev and test splits have no guests.

    A model with a classification head can only take guests whose labels the stream has.
    """

    summary: ClassVar[str] = "train examples of a general stream, or of other tasks, mixed into each task"
    paper: ClassVar[str] = "2406.14833"

    name: Literal["mixture"] = "mixture"
    share: float = Field(gt=0, lt=1, description="of a mixed train split, what are guests")
    general: dict[str, Any] | None = Field(
        None, description="a stream's name, or its entry: `name` and its source's keys"
    )
    tasks: tuple[str, ...] | None = Field(None, min_length=1, description="the tasks of this stream that guests are of")
    seed: Seed = 0

    @field_validator("general", mode="before")
    @classmethod
    def _is_stream(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, Mapping):
            # asked for its error: a mistake is told before anything is read
            _source_of(value)
        return value

    @model_validator(mode="after")
    def _one_origin(self) -> Mixture:
        if (self.general is None) == (self.tasks is None):
            raise ValueError("give one of general, a stream that guests are of, and tasks of this stream")
        return self

    def located(self) -> Self:
        if self.general is None:
            return self
        source, settings = _source_of(self.general)
        located = settings.located().model_dump(mode="json")
        return self.model_copy(update={"general": {"name": self.general["name"], "source": source, **located}})

    def apply(self, stream: Stream) -> Stream:
        candidates = self._candidates(stream)
        mixed = []
        for task in stream.tasks:
            # no task is its own guest
            others = tuple(other for other in candidates if other.content_name != task.content_name)
            guests = Guests(task.content_name, others, self.share, self.seed)
            part = task.part(task.name, first_name=task.first_name, guests=guests, guest_tasks=others)
            mixed.append(part)
        return replace(stream, tasks=tuple(mixed))

    def _candidates(self, stream: Stream) -> tuple[Task, ...]:
        """The tasks whose examples are mixed into others."""
        if self.general is not None:
            _, settings = _source_of(self.general)
            # whatever keeps rows of the stream out, such as `row_half`, keeps them out here too
            limits = replace(stream.tasks[0].limits, max_train=None, max_dev=None, max_test=None)
            return settings.stream(self.general["name"], limits).tasks
        assert self.tasks is not None
        return tuple(self.task_of(stream, name) for name in self.tasks)


def _source_of(entry: Mapping[str, Any]) -> tuple[str, Source]:
    """The source of a stream's entry: its name, and its settings. Raises ValueError for what is none."""
    own = dict(entry)
    name = own.pop("name", None)
    if not isinstance(name, str):
        raise ValueError("a stream needs a `name`")
    source, kind, settings = resolve_source(name, own)
    for key in settings:
        if key not in kind.model_fields:
            raise ValueError(unknown_name("key", str(key), ["name", "source", *kind.model_fields]))
    return source, kind.model_validate(settings)


@dataclass(frozen=True)
class Guests:
    """Gives the guests of a task, for so many train examples of its own."""

    host: str
    tasks: tuple[Task, ...]
    share: float
    seed: Seed

    def __call__(self, num_own: int) -> list[Example]:
        # a task of which alone guests were to be has none itself
        if not self.tasks:
            return []
        # share = count / (num_own + count)
        count = round(num_own * self.share / (1 - self.share))
        if count > len(self._in_drawn_order):
            raise ValueError(
                f"scenario 'mixture': a share of {self.share:g} beside {num_own} examples of task {self.host!r} takes "
                f"{count} guests, and there are {len(self._in_drawn_order)}"
            )
        return self._in_drawn_order[:count]

    @cached_property
    def _in_drawn_order(self) -> list[Example]:
        guests = []
        for task in self.tasks:
            for example in task.read("train"):
                # one that was asked as another task asks goes on being asked so
                prompt = example.prompt or task.prompt(example.text)
                guests.append(replace(example, prompt=prompt))

        def rank(guest: Example) -> tuple[float, str]:
            asked = str(guest.prompt)
            return draw(self.seed, "mixture", self.host, asked), asked

        return sorted(guests, key=rank)
