"""What a user may ask for of the running itself: workers, scoring, and where MLflow is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from orchestrator.config import Keep
from orchestrator.config.section import Section, check_unique

# Which part of an accuracy matrix's rows is computed, see `EvaluationConfig.rows`
Rows = Literal["all", "seen"]


class ScalingConfig(Section):
    """The workers of one sequence. Sequences run side by side as far as the cluster reaches."""

    workers: int | tuple[int, int] = Field(
        1, description="a number, or the fewest and the most, such as [1, 4]: as many as there is room for, at any time"
    )
    strategy: Literal["ddp", "fsdp", "hsdp"] = Field(
        "ddp",
        description="ddp: each worker has the whole model; fsdp: all share one, each holding a part of every weight; "
        "hsdp: those of a node share one",
    )
    cpus_per_worker: float = Field(1, gt=0)
    gpus_per_worker: float | None = Field(None, ge=0, description="null: 1 where the cluster has GPUs, else 0")
    max_concurrent: int | None = Field(
        None,
        ge=1,
        description="sequences side by side; null: as many as fit now. A number also waits for nodes to come",
    )
    max_failures: int = Field(
        2, ge=0, description="how often a group of workers that crashed is started again with nothing done between"
    )

    @property
    def fewest_workers(self) -> int:
        """The number of workers that a sequence needs."""
        if isinstance(self.workers, int):
            return self.workers
        return self.workers[0]

    @property
    def most_workers(self) -> int:
        """The number of workers that a sequence has where there is room for them."""
        if isinstance(self.workers, int):
            return self.workers
        return self.workers[1]

    @property
    def is_elastic(self) -> bool:
        """Whether the number of workers follows the cluster."""
        return self.fewest_workers < self.most_workers

    @property
    def is_sharded(self) -> bool:
        """Whether each worker holds a part of the model alone; a single one has the whole under every strategy."""
        return self.strategy != "ddp" and self.most_workers > 1

    @field_validator("workers", mode="before")
    @classmethod
    def _one_or_more(cls, workers: Any) -> Any:
        numbers = workers
        if not isinstance(workers, list | tuple):
            numbers = [workers, workers]
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"expected whole numbers greater than or equal to 1 (found {workers!r})")
        if len(numbers) != 2 or numbers[0] > numbers[1]:
            raise ValueError(f"expected a number, or the fewest and the most, such as [1, 4] (found {workers!r})")
        return workers

    @model_validator(mode="after")
    def _a_gpu_each(self) -> ScalingConfig:
        # two workers of one group on one GPU cannot exchange anything: NCCL refuses them
        if self.most_workers > 1 and self.gpus_per_worker and self.gpus_per_worker < 1:
            raise ValueError(
                f"gpus_per_worker = {self.gpus_per_worker:g} goes with workers = 1: each of {self.most_workers} workers needs "
                "a GPU of its own; allowed: 0, 1 or more"
            )
        if self.is_elastic and self.strategy == "hsdp":
            raise ValueError(
                "strategy: 'hsdp' needs as many workers on each node, and goes with one number of workers; allowed with "
                f"workers = [{self.fewest_workers}, {self.most_workers}]: ddp, fsdp"
            )
        return self


class DuringConfig(Section):
    """Scores amid training (continual evaluation, arXiv 2205.13452): each task seen so far, on a few examples."""

    every: int = Field(
        ge=1, description="steps between two points; right after a switch of tasks after 1, 2, 4, 8, … steps"
    )
    examples: int = Field(256, ge=1, description="the most examples of each task, drawn by the seed")
    window: int = Field(10, ge=2, description="points in the window of WF and WP, in which a score falls or rises most")


class ProbesConfig(Section):
    """Benchmarks of lm-evaluation-harness that every state takes beside its tasks: what becomes of a model's base abilities."""

    tasks: tuple[str, ...] = Field(min_length=1, description="the harness's names, or those of task files of one's own")
    include: str | None = Field(None, description="a folder of task files of one's own")
    few_shot: int | None = Field(
        None, ge=0, description="solved examples before each question; null: as the task has it"
    )
    limit: int | None = Field(None, ge=1, description="only so many rows of each, the first ones")

    @model_validator(mode="after")
    def _once(self) -> ProbesConfig:
        check_unique("evaluation.probes.tasks", self.tasks)
        return self

    def located(self) -> ProbesConfig:
        """The same with a full path."""
        if self.include is None:
            return self
        return self.model_copy(update={"include": str(Path(self.include).expanduser().resolve())})


class EvaluationConfig(Section):
    """How checkpoints are scored."""

    batch: int = Field(64, ge=1, description="the most examples at a time; long ones are fewer on a CPU")
    rows: Rows = Field(
        "all",
        description="all: every state on every task; seen: on the tasks that it has seen alone, about half of the work: all "
        "metrics but fwt remain",
    )
    placement: Literal["auto", "inline", "async"] = Field(
        "auto", description="async: on resources that training leaves free; inline: in the training workers"
    )
    during: DuringConfig | None = Field(None, description="score amid training too; null: never, which costs nothing")
    run_code: bool = Field(
        False, description="run programs that the model writes, for the scorer pass@1: with limits, but as this user"
    )
    probes: ProbesConfig | None = Field(None, description="benchmarks of base abilities, taken by every state")


class CheckpointsConfig(Section):
    """What stays of the states on the disk. A score needs no state once it is computed."""

    keep: Keep = Field(
        "all",
        description="last: the state after each sequence's last task stays in the end; none: none does. What a later task, "
        "another sequence or a missing score needs stays until then",
    )
    delta: bool = Field(
        False,
        description="store weights as their difference from the task before, without loss: smaller, and read by "
        "`orchestrator` alone",
    )

    every_seconds: float | None = Field(
        600, gt=0, description="seconds between two states inside a task, which is gone on with there; null: none"
    )
    every_steps: int | None = Field(None, ge=1, description="the same, in steps")

    @model_validator(mode="after")
    def _has_a_base(self) -> CheckpointsConfig:
        if self.delta and self.keep != "all":
            raise ValueError(f"delta: true goes with keep: all; with keep: {self.keep} the state before does not stay")
        return self


class TrackingConfig(Section):
    """Where MLflow is. Without a URI: an sqlite store and an artifact folder in the output folder."""

    uri: str | None = None
    experiment: str | None = Field(None, description="MLflow experiment; default: the experiment's name")
