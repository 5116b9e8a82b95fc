"""What a user may ask for: the configuration of an experiment, read from YAML and checked once, at the door."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

import streams as streams_package
from methods import PUBLISHED, Context, MethodSpec, method_spec, unknown
from orchestrator.training_config import Section, TrainingConfig, check_training
from streams import HubTask, Limits, Stream, half_of_labels
from streams.holdout import Level


class ModelConfig(Section):
    """The model, and how text goes in and answers come out."""

    name: str = Field("tiny-t5", description="a built-in name, a local folder, or a hub id")
    revision: str | None = Field(None, description="the hub commit; by default the newest, which is then recorded")
    overrides: dict[str, Any] = Field(default_factory=dict, description="changes to a built-in model's configuration")
    scoring: Literal["auto", "generate", "head", "similarity"] = Field(
        "auto", description="auto: generate for (encoder-)decoders, similarity for sentence encoders, else head"
    )
    input: Literal["auto", "prompt", "text"] = Field(
        "auto", description="auto: the prompt if generating, else the text"
    )
    precision: Literal["auto", "float32", "bf16"] = Field("auto", description="auto: bf16 on a GPU, float32 elsewhere")
    max_source: int = Field(512, ge=8, description="tokens of the input at most; longer texts are shortened")
    max_target: int = Field(50, ge=2, description="tokens of the answer at most")


class StreamConfig(Section):
    """A stream: a name of the catalogue, or tasks of a folder, or tasks of the hub; and how much of each."""

    name: str
    folder: str | None = Field(None, description="where the tasks are; default: the variable CL_BENCHMARK_DIR")
    tasks: tuple[str | HubTask, ...] | None = Field(None, description="own tasks, in order")
    max_train: int | None = Field(None, ge=1)
    max_dev: int | None = Field(None, ge=1)
    max_test: int | None = Field(None, ge=1)
    first: int | None = Field(None, ge=1, description="only the first tasks")
    only: str | None = Field(None, description="this task alone")
    dev_fraction: float = Field(0.1, ge=0, lt=1, description="share of train that is held out as the dev split")
    seed: int = Field(0, ge=0, description="chooses the rows (not the training order)")
    row_half: Literal[0, 1] | None = Field(None, description="only this half of the rows, by their text")
    label_half: Literal[0, 1] | None = Field(None, description="only this half of each task's labels")

    @model_validator(mode="after")
    def _known(self) -> StreamConfig:
        if self.tasks is None and self.name not in streams_package.DESCRIPTIONS:
            hint = unknown("stream", self.name, streams_package.DESCRIPTIONS)
            raise ValueError(f"{hint}; a stream of your own needs `tasks`")
        if self.tasks is not None and len({isinstance(t, str) for t in self.tasks}) > 1:
            raise ValueError("`tasks` mixes folder tasks (names) and hub tasks (mappings)")
        return self

    def located(self) -> StreamConfig:
        """The same with the folder's full path, so that a worker on another machine needs no variable."""
        folder = self.folder or os.environ.get("CL_BENCHMARK_DIR")
        needs_it = self.name in streams_package.FOLDER_STREAMS or self.tasks is not None
        if not needs_it or not folder:
            return self
        return self.model_copy(update={"folder": str(Path(folder).expanduser().resolve())})

    def build(self) -> Stream:
        """The stream itself. Raises ValueError where its data is missing or wrong."""
        stream = self._whole()
        if self.label_half is not None:
            stream = Stream(stream.name, tuple(half_of_labels(t, self.label_half, self.seed) for t in stream.tasks))
        if self.first is not None and self.first > len(stream.tasks):
            raise ValueError(f"stream {self.name!r}: first = {self.first}, but it has {len(stream.tasks)} tasks")
        stream = stream.first(self.first) if self.first is not None else stream
        if self.only is None:
            return stream
        found = tuple(task for task in stream.tasks if task.name == self.only)
        if not found:
            raise ValueError(f"stream {self.name!r}: " + unknown("task", self.only, [t.name for t in stream.tasks]))
        return Stream(stream.name, found)

    def _whole(self) -> Stream:
        limits = Limits(self.max_train, self.max_dev, self.max_test, self.dev_fraction, self.seed, self.row_half)
        folder = self.located().folder
        path = Path(folder) if folder else None
        if self.tasks is None:
            return streams_package.named_stream(self.name, limits, path)
        hub = [task for task in self.tasks if isinstance(task, HubTask)]
        if hub:
            return streams_package.hub_stream(self.name, hub, limits)
        if path is None:
            raise ValueError(f"stream {self.name!r}: its tasks are names, so set `folder`, or CL_BENCHMARK_DIR")
        return streams_package.folder_stream(self.name, path, [str(t) for t in self.tasks], limits)


class ScalingConfig(Section):
    """The workers of one sequence. Sequences run side by side as far as the cluster reaches."""

    workers: int = Field(1, ge=1)
    cpus_per_worker: float = Field(1, gt=0)
    gpus_per_worker: float | None = Field(None, ge=0, description="null: 1 where the cluster has GPUs, else 0")
    at_once: int | None = Field(
        None,
        ge=1,
        description="sequences side by side; null: as many as fit now. A number also waits for nodes to come",
    )
    max_failures: int = Field(2, ge=0, description="how often a crashed group of workers is started again")


class EvaluationConfig(Section):
    """How checkpoints are scored."""

    batch: int = Field(64, ge=1)
    where: Literal["auto", "inline", "async"] = Field(
        "auto", description="async: on resources that training leaves free; inline: in the training workers"
    )


class TrackingConfig(Section):
    """Where MLflow is. Without a URI: an sqlite store and an artifact folder in the output folder."""

    uri: str | None = None
    experiment: str | None = Field(None, description="MLflow experiment; default: the experiment's name")


class Dimension(Section):
    """What a search tries for one parameter: listed values, or a range."""

    values: tuple[float | int | bool | str | None, ...] | None = Field(None, min_length=1)
    low: float | None = Field(None, allow_inf_nan=False)
    high: float | None = Field(None, allow_inf_nan=False)
    log: bool = Field(False, description="drawn evenly in the logarithm")
    integer: bool = False

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        """Accepts [0.1, 0.3] and {low: 1e-5, high: 1e-3, log: true}."""
        return {"values": value} if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _one_form(self) -> Dimension:
        if self.values is not None:
            if self.low is not None or self.high is not None or self.log or self.integer:
                raise ValueError("give either a list of values, or low and high")
            if len(set(self.values)) != len(self.values):
                raise ValueError("a value is given twice")
        elif self.low is None or self.high is None or not self.low < self.high:
            raise ValueError("expected a list of values, or {low, high, log, integer} with low < high")
        elif self.log and self.low <= 0:
            raise ValueError("a logarithmic range needs low > 0")
        return self

    @property
    def size(self) -> float:
        """How many values there are; infinite for a real range."""
        if self.values is not None:
            return len(self.values)
        assert self.low is not None and self.high is not None
        return math.floor(self.high) - math.ceil(self.low) + 1 if self.integer else math.inf


class MethodEntry(MethodSpec):
    """A method of the experiment, with training settings of its own where it needs them (such as a learning rate)."""

    training: dict[str, Any] = Field(default_factory=dict)
    space: dict[str, Dimension] = Field(default_factory=dict, description="what a search tries, where not as declared")

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, value: Any) -> Any:
        """Accepts "ft+migu", {preset: ft+migu, training: … or `published`}, or {tuning: …, plugins: […]}."""
        if isinstance(value, str):
            value = {"preset": value}
        if isinstance(value, Mapping) and value.get("training") == "published":
            known = value.get("preset")
            if not isinstance(known, str) or known not in PUBLISHED:
                raise ValueError(
                    f"training: no published training of {known!r} is known; known: {', '.join(PUBLISHED)}"
                )
            value = {**value, "training": PUBLISHED[known]}
        if isinstance(value, Mapping) and "preset" in value:
            rest = {k: v for k, v in value.items() if k != "preset"}
            return {**method_spec(value["preset"]).model_dump(), **rest}
        return value

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not re.fullmatch(r"[\w.+ ()=,-]*", name):
            raise ValueError(f"{name!r}: a method's name has letters, digits, spaces and . + - _ ( ) = , only")
        return name

    @field_validator("training")
    @classmethod
    def _is_training(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "budget" in value:
            raise ValueError("budget: a budget is the same for all methods; set it in the experiment's `training`")
        TrainingConfig.model_validate(value)
        return value

    @property
    def spec(self) -> MethodSpec:
        """The method without its training settings."""
        return MethodSpec(name=self.name, tuning=self.tuning, plugins=self.plugins, bound=self.bound)


def _stream_entry(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Streams = Annotated[tuple[Annotated[StreamConfig, BeforeValidator(_stream_entry)], ...], Field(min_length=1)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1)]


class SearchConfig(Section):
    """How hyper-parameters are chosen, on streams that the evaluation never sees.

    One trial is one method with one choice of values, trained on every tuning stream with every tuning seed and scored on
    the dev split. The protocol is that of arXiv 2403.09066 with text; see `streams.holdout` for its levels.
    """

    streams: Streams
    holdout: Level = Field("tasks", description="what the tuning streams may share with the evaluation streams")
    straddling: tuple[tuple[str, str], ...] = Field((), description="related data sets that may lie on two sides")
    searcher: Literal["random", "grid", "tpe", "cma"] = Field(
        "random", description="tpe and cma: Optuna's; cma searches at random what is not a number, or is the only one"
    )
    scheduler: Literal["fifo", "asha"] = Field("fifo", description="asha stops weak trials at rungs of finished tasks")
    grace: int = Field(2, ge=2, description="asha: tasks before a trial can be stopped; early tasks mislead")
    reduction: float = Field(3, gt=1, description="asha: one in so many goes on at each rung")
    trials: int = Field(30, ge=1, description="for every method")
    trial_tasks: int | None = Field(None, ge=1, description="stop proposing when a method's trials took so many tasks")
    select: Literal["final", "first-task"] = Field("final", description="first-task: tune on the first task alone")
    metric: Literal["aa", "aa_options"] = "aa"
    forgetting_weight: float = Field(0.0, ge=0, allow_inf_nan=False, description="score = metric - weight x forgetting")
    seeds: Seeds = (0,)
    seed: int = Field(0, ge=0, description="of the searcher's own draws")
    at_once: int | None = Field(None, ge=1, description="trials side by side; null: as many as fit now")
    space: dict[str, Dimension] = Field(default_factory=dict, description="what is tried, where not as declared")

    @model_validator(mode="after")
    def _consistent(self) -> SearchConfig:
        _check_unique("search.seeds", self.seeds)
        _check_unique("search.streams", [s.name for s in self.streams])
        if self.select == "first-task" and self.scheduler == "asha":
            raise ValueError("search.scheduler: asha needs several tasks, and select: first-task trains one")
        return self


class RunConfig(Section):
    """An experiment: every method over every stream with every seed."""

    name: str = Field("experiment", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    model: ModelConfig = ModelConfig()
    streams: Streams
    methods: tuple[MethodEntry, ...] = Field(min_length=1)
    seeds: Seeds = (42,)
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    scaling: ScalingConfig = ScalingConfig()
    tracking: TrackingConfig = TrackingConfig()
    search: SearchConfig | None = Field(None, description="how `orchestrator tune` chooses hyper-parameters")
    out: str = Field("runs", description="folder for checkpoints, journals, cells, reports and the MLflow store")

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        _check_unique("methods", [m.label for m in self.methods], "; give each a `name`")
        _check_unique("seeds", self.seeds)
        _check_unique("streams", [s.name for s in self.streams])
        shared = set(self.seeds) & set(self.search.seeds) if self.search else set()
        if shared and self.search and self.search.holdout != "none":
            raise ValueError(f"search.seeds: {min(shared)} is an evaluation seed too; the evaluation needs fresh ones")
        for method in self.methods:
            check_batch(self.training_for(method), self.scaling.workers)
        return self

    def training_for(self, method: MethodEntry) -> TrainingConfig:
        """The training settings with the method's own on top. Raises ValueError where they do not go together."""
        shared = self.training.model_dump()
        parts = {key: shared[key] | method.training.get(key, {}) for key in ("lrs", "infinite")}
        alone: dict[str, Any] = {"epochs_per_task": {}} if method.bound == "joint" else {}  # it has no tasks
        training = TrainingConfig.model_validate({**shared, **method.training, **parts, **alone})
        check_training(training)
        method.spec.build(Context(0)).fresh(1, training.global_batch)  # raises where a batch is too small to be shared
        if training.schedule == "infinite" and method.spec.makes_steps:
            _check_goes_on(method)
        return training


def _check_goes_on(method: MethodEntry) -> None:
    """Raises ValueError where the next task cannot go on from weights of before the annealing."""
    for part, kind in zip((method.tuning, *method.plugins), method.types, strict=True):
        reason = kind.reshapes or getattr(kind, "no_lasting", "")
        if reason:
            raise ValueError(f"training.schedule: 'infinite' cannot be combined with {part.name!r}: {reason}")


def _check_unique(what: str, values: Iterable[Any], advice: str = "") -> None:
    """Raises ValueError where a value comes twice."""
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"{what}: {twice[0]!r} is given twice{advice}")


def check_batch(training: TrainingConfig, workers: int) -> None:
    """Raises ValueError where the global batch does not divide into equal micro-batches for the workers."""
    batch, micro = training.global_batch, training.micro_batch
    if batch % workers:
        raise ValueError(f"training.global_batch: {batch} does not divide by scaling.workers = {workers}")
    if micro and batch % (micro * workers):
        raise ValueError(
            f"training.micro_batch: global_batch = {batch} is not a multiple of micro_batch x workers = {micro} x {workers}"
        )
