"""What a user may ask for of a stream: where its text comes from, how much of it, how it is asked and scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from methods import unknown
from orchestrator.config.section import Section, check_unique
from streams import (
    FROM_LIKELIHOOD,
    NEED_LABELS,
    Corpus,
    LeakKind,
    Limits,
    Scenario,
    Source,
    Stream,
    Task,
    check_labels,
    check_scorer,
    find_prompt,
    find_scenarios,
    half_of_labels,
    resolve_source,
    tasks_of_labels,
)

# one value for all tasks, or values by task name
PerTask = str | dict[str, str]


class KnowledgeConfig(Section):
    """Which tasks hold what kind of knowledge, for FUAR (arXiv 2110.03215)."""

    forgotten: tuple[str, ...] = Field(min_length=1, description="tasks of what should stay as it was learnt")
    updated: tuple[str, ...] = Field((), description="tasks of what replaces older knowledge")
    acquired: tuple[str, ...] = Field((), description="tasks of what is new")

    @property
    def tasks(self) -> tuple[str, ...]:
        """All that it names."""
        return (*self.forgotten, *self.updated, *self.acquired)

    @model_validator(mode="after")
    def _gains_something(self) -> KnowledgeConfig:
        if not self.updated and not self.acquired:
            raise ValueError("it needs tasks that are updated or acquired, beside which something is forgotten")
        check_unique("tasks", self.tasks)
        return self


class StreamConfig(Section):
    """A stream: a name of the catalogue, or a source with its own settings; and how much of each task.

    In YAML the source's settings stand beside the keys below, as if they were one section. Which they are is the
    source's affair: see `streams.sources`.
    """

    name: str
    source: str = Field(description="a registered source or a dotted path; by default found from the other keys")
    settings: SerializeAsAny[Source] = Field(description="the source's own settings")
    max_train: int | None = Field(None, ge=1)
    max_dev: int | None = Field(None, ge=1)
    max_test: int | None = Field(None, ge=1)
    first: int | None = Field(None, ge=1, description="only the first tasks")
    only: str | None = Field(None, description="this task alone")
    dev_fraction: float = Field(0.1, ge=0, lt=1, description="share of train that is held out as the dev split")
    seed: int = Field(0, ge=0, description="chooses the rows (not the training order)")
    row_half: Literal[0, 1] | None = Field(None, description="only this half of the rows, by their text")
    label_half: Literal[0, 1] | None = Field(None, description="only this half of each task's labels")
    labels_per_task: int | None = Field(
        None, ge=2, description="cut each task into tasks that bring so many labels each, one after the other"
    )
    class_order: int | str = Field(
        "listed",
        description="in which order labels_per_task brings the labels: as listed, drawn by this number, or by each seed of the "
        "experiment (as arXiv 2403.09066 does)",
    )
    prompt: PerTask | None = Field(None, description="a prompt's name or template, for all tasks or by task name")
    scorer: PerTask | None = Field(None, description="a scorer's name, for all tasks or by task name")
    fuar: KnowledgeConfig | None = Field(None, description="which tasks are forgotten, updated and acquired, for FUAR")
    scenario: tuple[SerializeAsAny[Scenario], ...] = Field(
        (), description="what makes another stream of these tasks; several are applied one after the other"
    )

    allow: tuple[LeakKind, ...] = Field((), description="leaks of its data with which it is trained all the same")

    @model_validator(mode="before")
    @classmethod
    def _with_source(cls, entry: Any) -> Any:
        """Accepts "embedded", and keys of the source beside those of the stream."""
        if isinstance(entry, str):
            entry = {"name": entry}
        if not isinstance(entry, Mapping) or isinstance(entry.get("settings"), Source):
            return entry
        if not isinstance(entry.get("name"), str):
            raise ValueError("a stream needs a `name`")
        # whatever is no key of every stream is the source's: the configuration need not know what sources there are
        common = {}
        own = {}
        for key, value in entry.items():
            if key in COMMON_KEYS:
                common[key] = value
            else:
                own[key] = value
        source, kind, settings = resolve_source(entry["name"], own)
        # here, not in the source, so that the nearest name may be one of the stream's own keys
        for key in settings:
            if key not in kind.model_fields:
                raise ValueError(unknown("key", str(key), [*COMMON_KEYS, "source", *kind.model_fields]))
        return {**common, "source": source, "settings": kind.model_validate(settings)}

    @model_serializer(mode="wrap")
    def _side_by_side(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The form in which a user writes it, so that a saved configuration reads like a written one."""
        values: dict[str, Any] = dump(self)
        settings = values.pop("settings")
        # added later: what was saved without it stays what it is
        if self.fuar is None:
            values.pop("fuar", None)
        if not self.allow:
            values.pop("allow", None)
        # added later: what was saved without one stays what it is
        if not self.scenario:
            values.pop("scenario", None)
        return {**values, **settings}

    @field_validator("scenario", mode="before")
    @classmethod
    def _is_scenario(cls, value: Any) -> Any:
        if value is None:
            return ()
        return find_scenarios(value)

    @field_validator("class_order")
    @classmethod
    def _is_order(cls, value: int | str) -> int | str:
        if value in ("listed", "by-seed") or (isinstance(value, int) and value >= 0):
            return value
        raise ValueError(f"{value!r} is none of listed, by-seed, or a number from 0")

    @field_validator("prompt")
    @classmethod
    def _is_prompt(cls, value: PerTask | None) -> PerTask | None:
        for prompt in _values(value):
            find_prompt(prompt)
        return value

    @field_validator("scorer")
    @classmethod
    def _is_scorer(cls, value: PerTask | None) -> PerTask | None:
        for scorer in _values(value):
            check_scorer(scorer)
        return value

    @model_validator(mode="after")
    def _order_of_something(self) -> StreamConfig:
        # without parts the labels have no order in which they come
        if self.class_order != "listed" and self.labels_per_task is None:
            raise ValueError(
                f"class_order: {self.class_order!r} needs labels_per_task, which says what comes in that order"
            )
        return self

    def for_seed(self, seed: int) -> StreamConfig:
        """The stream that the runs of a seed train on: the same for all, unless what is drawn goes by the seed."""
        changes: dict[str, Any] = {}
        if self.class_order == "by-seed":
            changes["class_order"] = seed
        scenarios = tuple(scenario.for_seed(seed) for scenario in self.scenario)
        if scenarios != self.scenario:
            changes["scenario"] = scenarios
        if not changes:
            return self
        return self.model_copy(update=changes)

    def located(self) -> StreamConfig:
        """The same with full paths, so that a worker on another machine needs no variable of this one."""
        scenarios = tuple(scenario.located() for scenario in self.scenario)
        return self.model_copy(update={"settings": self.settings.located(), "scenario": scenarios})

    def build(self) -> Stream:
        """The stream itself. Raises ValueError where its data is missing or wrong."""
        limits = Limits(self.max_train, self.max_dev, self.max_test, self.dev_fraction, self.seed, self.row_half)
        stream = self.settings.stream(self.name, limits)
        # only the data says which tasks there are
        self._check_task_names(stream)
        stream = stream.changed(self._asked_and_scored)
        # before anything is cut: labels that are one to the scorer are so in two tasks too
        for task in stream.tasks:
            # a scorer that the source gave; one that the user gave is checked where it is read
            check_scorer(task.scorer)
            check_labels(task.answered)
        if self.label_half is not None:
            half = self.label_half
            stream = stream.changed(lambda task: half_of_labels(task, half, self.seed))
        if self.labels_per_task is not None:
            stream = self._cut_by_labels(stream, self.labels_per_task)
        for scenario in self.scenario:
            stream = scenario.applied(stream)
        if self.first is not None:
            if self.first > len(stream.tasks):
                raise ValueError(f"stream {self.name!r}: first = {self.first}, but it has {len(stream.tasks)} tasks")
            stream = stream.first(self.first)
        # of the tasks that are trained in the end
        for name in self.fuar.tasks if self.fuar else ():
            if name not in stream.task_names:
                raise ValueError(f"stream {self.name!r}: fuar: " + unknown("task", name, stream.task_names))
        return self._only(stream)

    def _cut_by_labels(self, stream: Stream, labels_per_task: int) -> Stream:
        # which seed it goes by is known only to a run: see `for_seed`
        if self.class_order == "by-seed":
            raise ValueError(f"stream {self.name!r}: class_order: 'by-seed' needs the seed of a run")
        seed = None
        if self.class_order != "listed":
            seed = int(self.class_order)
        tasks: list[Task] = []
        for task in stream.tasks:
            tasks += tasks_of_labels(task, labels_per_task, seed)
        return Stream(stream.name, tuple(tasks))

    def _check_task_names(self, stream: Stream) -> None:
        for key, value in (("prompt", self.prompt), ("scorer", self.scorer)):
            if isinstance(value, dict):
                for task in value:
                    if task not in stream.task_names:
                        raise ValueError(f"stream {self.name!r}: {key}: " + unknown("task", task, stream.task_names))

    def _asked_and_scored(self, task: Task) -> Task:
        """The task with the stream's prompt and scorer; where none is given, those that its source gave it."""
        prompt = _value_for(task, self.prompt)
        if prompt is not None and task.objective == "text":
            raise ValueError(f"stream {self.name!r}: prompt: task {task.name!r} is a corpus, of which nothing is asked")
        if prompt is not None:
            task = replace(task, template=find_prompt(prompt))
        scorer = _value_for(task, self.scorer)
        if scorer is not None and isinstance(task, Corpus):
            self._check_scorer_of_corpus(task, scorer)
        if scorer is not None:
            task = replace(task, scorer=scorer)
        return task

    def _check_scorer_of_corpus(self, task: Corpus, scorer: str) -> None:
        what = "is a corpus"
        allowed = FROM_LIKELIHOOD
        if task.end_task is not None:
            what = "is scored by its end task"
            allowed = NEED_LABELS
        if scorer not in allowed:
            raise ValueError(
                f"stream {self.name!r}: scorer: {scorer!r}: task {task.name!r} {what}; allowed: {', '.join(allowed)}"
            )

    def _only(self, stream: Stream) -> Stream:
        if self.only is None:
            return stream
        for task in stream.tasks:
            if task.name == self.only:
                return Stream(stream.name, (task,))
        raise ValueError(f"stream {self.name!r}: " + unknown("task", self.only, stream.task_names))


# `source` says which source reads the rest, so it goes with the rest
COMMON_KEYS = [key for key in StreamConfig.model_fields if key not in ("source", "settings")]


def _values(value: PerTask | None) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    return list(value.values())


def _value_for(task: Task, value: PerTask | None) -> str | None:
    if isinstance(value, dict):
        return value.get(task.name)
    return value


Streams = Annotated[tuple[StreamConfig, ...], Field(min_length=1)]
