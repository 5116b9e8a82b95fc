"""What a user may ask for: the configuration of an experiment, read from YAML and checked once, at the door."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from methods import Context
from orchestrator.config.method import MethodEntry
from orchestrator.config.model import ModelConfig
from orchestrator.config.running import EvaluationConfig, ScalingConfig, TrackingConfig
from orchestrator.config.search import SearchConfig
from orchestrator.config.section import Section, Seeds, check_unique
from orchestrator.config.stream import Streams
from orchestrator.config.training import TrainingConfig, check_training


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
        check_unique("methods", [m.label for m in self.methods], "; give each a `name`")
        check_unique("seeds", self.seeds)
        check_unique("streams", [s.name for s in self.streams])
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
        alone: dict[str, Any] = {} if method.run_kind.has_task_boundaries else {"epochs_per_task": {}}
        training = TrainingConfig.model_validate({**shared, **method.training, **parts, **alone})
        check_training(training)
        method.spec.build(Context(0)).num_new_examples(
            1, training.global_batch
        )  # raises where a batch is too small to be shared
        if training.schedule == "infinite" and method.spec.trains_sequentially:
            _check_goes_on(method)
        return training


def _check_goes_on(method: MethodEntry) -> None:
    """Raises ValueError where the next task cannot go on from weights of before the annealing."""
    for part, kind in zip((method.tuning, *method.plugins), method.types, strict=True):
        reason = kind.card.modifies_weights_after_task or kind.card.per_task_weights
        if reason:
            raise ValueError(f"training.schedule: 'infinite' cannot be combined with {part.name!r}: {reason}")


def check_batch(training: TrainingConfig, workers: int) -> None:
    """Raises ValueError where the global batch does not divide into equal micro-batches for the workers."""
    batch, micro = training.global_batch, training.micro_batch
    if batch % workers:
        raise ValueError(f"training.global_batch: {batch} does not divide by scaling.workers = {workers}")
    if micro and batch % (micro * workers):
        raise ValueError(
            f"training.micro_batch: global_batch = {batch} is not a multiple of micro_batch x workers = {micro} x {workers}"
        )
