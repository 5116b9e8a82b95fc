"""What a user may ask for: the configuration of an experiment, read from YAML and checked once, at the door."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from pydantic import Field, PrivateAttr, model_validator

from methods import Context, StoredForm, TuningMethod
from methods.shared.quantised import KINDS
from orchestrator.config.method import MethodEntry
from orchestrator.config.model import ModelConfig
from orchestrator.config.running import CheckpointsConfig, EvaluationConfig, ScalingConfig, TrackingConfig
from orchestrator.config.search import SearchConfig
from orchestrator.config.section import Section, Seeds, check_unique
from orchestrator.config.stream import Streams
from orchestrator.config.training import TrainingConfig, check_training
from streams import Stream


class RunConfig(Section):
    """An experiment: every method over every stream with every seed."""

    # part of names of files, which have 255 bytes at most
    name: str = Field("experiment", max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    model: ModelConfig = ModelConfig()
    streams: Streams
    methods: tuple[MethodEntry, ...] = Field(min_length=1)
    seeds: Seeds = (42,)
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    scaling: ScalingConfig = ScalingConfig()
    tracking: TrackingConfig = TrackingConfig()
    search: SearchConfig | None = Field(None, description="how `orchestrator tune` chooses hyper-parameters")
    out: str = Field(
        "runs",
        description="folder, or s3://bucket/prefix, for checkpoints, journals, scores, reports and the MLflow store",
    )

    # the training settings of each method, complete: resolved when the configuration is validated, and nowhere else
    _resolved: tuple[tuple[MethodEntry, TrainingConfig], ...] = PrivateAttr(())

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        check_unique("methods", [method.label for method in self.methods], "; give each a `name`")
        check_unique("seeds", self.seeds)
        check_unique("streams", [stream.name for stream in self.streams])
        self._check_seeds()
        if self.model.base in KINDS and self.scaling.is_sharded:
            raise ValueError(
                f"model.base: {self.model.base!r} cannot be combined with scaling.strategy: {self.scaling.strategy!r}, which "
                "gives each worker rows of a weight: rows of codes are no rows of the weight; allowed: ddp"
            )
        if self.evaluation.probes is not None and self.scaling.is_sharded:
            raise ValueError(
                f"evaluation.probes cannot be combined with scaling.strategy: {self.scaling.strategy!r}: the harness asks a "
                "whole model; allowed: ddp"
            )
        resolved = []
        trainings = []
        for method in self.methods:
            training = resolve_training(self.training, method)
            check_strategy(method, self.scaling)
            check_during(method, self.evaluation)
            check_base(method, self.model.base)
            resolved.append((method, training))
            trainings.append(training)
        # a method may have a global batch of its own, but all have the experiment's workers
        check_workers(trainings, self.scaling)
        if self.search is not None and self.scaling.is_elastic:
            found = [self.scaling.fewest_workers, self.scaling.most_workers]
            raise ValueError(f"scaling.workers: a search takes one number (found {found})")
        self._resolved = tuple(resolved)
        return self

    def _check_seeds(self) -> None:
        if self.search is None or self.search.holdout == "none":
            return
        # a seed chooses initial values and the order of examples: tuned on, it is no fresh draw in the evaluation
        shared = set(self.seeds) & set(self.search.seeds)
        if shared:
            raise ValueError(f"search.seeds: {min(shared)} is an evaluation seed too; the evaluation needs fresh ones")

    def training_for(self, method: MethodEntry) -> TrainingConfig:
        """The training settings of a method, with its own on top.

        Those of the experiment's methods were resolved at the door. Another entry is one that a search made, which
        passes through the same door here: raises ValueError where its settings do not go together.
        """
        for entry, training in self._resolved:
            # the entry itself, not its name: a search gives other values to a method of the same name
            if entry is method:
                return training
        return resolve_training(self.training, method)

    def training_on(self, method: MethodEntry, stream: Stream) -> TrainingConfig:
        """The training settings of a method on a stream, whose scenario may say for how many epochs its tasks are trained.

        Raises ValueError where a budget says it already.
        """
        training = self.training_for(method)
        epochs = {}
        for task in stream.tasks:
            if task.epochs is not None:
                epochs[task.name] = task.epochs
        if not epochs:
            return training
        if training.budget:
            raise ValueError(
                f"stream {stream.name!r}: its scenario gives epochs, and training.budget takes the place of epochs; give one "
                "of them"
            )
        # trained as one, the tasks have one number of epochs, as the scenario gave one
        if not method.run_kind.has_task_boundaries:
            return training.model_copy(update={"epochs": max(epochs.values())})
        return training.model_copy(update={"epochs_per_task": {**epochs, **training.epochs_per_task}})


def resolve_training(shared: TrainingConfig, method: MethodEntry) -> TrainingConfig:
    """The experiment's settings with the method's own on top. Raises ValueError where they do not go together."""
    values: dict[str, Any] = shared.model_dump()
    # checked with all values in it, once: a method's own rate may be right only with the schedule that all share
    for key, value in method.training.items():
        # these two are mappings of their own, of which a method may change some entries
        if key in ("lrs", "infinite"):
            value = {**values[key], **value}
        values[key] = value
    # a rate that is given is for all methods alike, whatever theirs is: `planning.fairness` says where that may be a mistake
    if values["lr"] is None:
        values["lr"] = method.spec.tuning_type.card.default_lr
    # trained as one, tasks have no epochs of their own
    if not method.run_kind.has_task_boundaries:
        values["epochs_per_task"] = {}
    training = TrainingConfig.model_validate(values)
    check_training(training)
    # asked for its error alone: some methods need room in a batch for old examples
    method.spec.build(Context(0)).num_new_examples(1, training.global_batch)
    if training.schedule == "infinite" and method.spec.trains_sequentially:
        _check_goes_on(method)
    return training


def _check_goes_on(method: MethodEntry) -> None:
    """Raises ValueError where the next task cannot go on from weights of before the annealing."""
    parts = (method.tuning, *method.plugins)
    for part, kind in zip(parts, method.types, strict=True):
        reason = kind.card.modifies_weights_after_task or kind.card.per_task_weights
        if not reason and issubclass(kind, StoredForm):
            reason = "the next task goes on from the form in which the weights are stored"
        if reason:
            raise ValueError(f"training.schedule: 'infinite' cannot be combined with {part.name!r}: {reason}")


def check_strategy(method: MethodEntry, scaling: ScalingConfig) -> None:
    """Raises ValueError where a method cannot work on a model that is in parts."""
    if not scaling.is_sharded:
        return
    for part, kind in zip((method.tuning, *method.plugins), method.types, strict=True):
        if kind.card.not_sharded:
            raise ValueError(
                f"scaling.strategy: {scaling.strategy!r} cannot be combined with {part.name!r}: {kind.card.not_sharded}"
            )


def check_during(method: MethodEntry, evaluation: EvaluationConfig) -> None:
    """Raises ValueError where scores amid training would change how a method trains."""
    tuning = method.types[0]
    # of plug-ins none is told before scoring
    if evaluation.during is None or not issubclass(tuning, TuningMethod):
        return
    sets = tuning.before_scoring is not TuningMethod.before_scoring
    if sets and tuning.after_scoring is TuningMethod.after_scoring:
        raise ValueError(
            f"evaluation.during: cannot be combined with {method.tuning.name!r}: {tuning.__name__} has before_scoring and "
            "no after_scoring to put back what that sets; allowed: null"
        )


def check_base(method: MethodEntry, base: str) -> None:
    """Raises ValueError where a method cannot work on a frozen base of that type."""
    if base not in KINDS:
        return
    for part, kind in zip((method.tuning, *method.plugins), method.types, strict=True):
        if kind.card.not_quantised:
            raise ValueError(f"model.base: {base!r} cannot be combined with {part.name!r}: {kind.card.not_quantised}")


def check_workers(trainings: Sequence[TrainingConfig], scaling: ScalingConfig) -> None:
    """Raises ValueError where no number of workers that is allowed divides every global batch into equal micro-batches."""
    if worker_counts(trainings, scaling):
        return
    if not scaling.is_elastic:
        for training in trainings:
            check_batch(training, scaling.most_workers)
    batches = sorted({training.global_batch for training in trainings})
    raise ValueError(
        f"training.global_batch: {', '.join(map(str, batches))}: with training.micro_batch, no number of workers from "
        f"{scaling.fewest_workers} to {scaling.most_workers}, as scaling.workers allows, divides all"
    )


def worker_counts(trainings: Sequence[TrainingConfig], scaling: ScalingConfig) -> list[int]:
    """The numbers of workers that scaling allows and among which every global batch divides."""
    counts = []
    # more have no example each
    smallest = min(trainings, key=lambda training: training.global_batch)
    for workers in range(scaling.fewest_workers, min(scaling.most_workers, smallest.global_batch) + 1):
        with contextlib.suppress(ValueError):
            for training in trainings:
                check_batch(training, workers)
            counts.append(workers)
    return counts


def check_batch(training: TrainingConfig, workers: int) -> None:
    """Raises ValueError where the global batch does not divide into equal micro-batches for the workers."""
    batch = training.global_batch
    if batch % workers:
        raise ValueError(f"training.global_batch: {batch} does not divide by scaling.workers = {workers}")
    micro = training.micro_batch
    if micro == "auto":
        return
    if micro and batch % (micro * workers):
        raise ValueError(
            f"training.micro_batch: global_batch = {batch} is not a multiple of micro_batch x workers = {micro} x {workers}"
        )
