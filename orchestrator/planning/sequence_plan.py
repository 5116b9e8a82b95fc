"""The plan of one sequence: all that a worker needs to train and score it, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from orchestrator.config.method import MethodEntry
from orchestrator.config.model import ModelConfig
from orchestrator.config.running import CheckpointsConfig, EvaluationConfig
from orchestrator.config.section import Section
from orchestrator.config.stream import StreamConfig
from orchestrator.config.training import TrainingConfig
from orchestrator.storage.places import folder_at
from orchestrator.store.access_log import TestAccessLog
from streams import DEFAULT_SCORER, Stream, Task

Split = Literal["dev", "test"]


class SequencePlan(Section):
    """One (model, stream, method, settings, seed), trained from its first task to its last.

    `keys[t]` names the state after task t (`keys[0]`: before training) by all that made it, `score_keys[t][j]` its score
    on task j, and `id` the sequence by its name and all of these. `training` is the experiment's with the method's own
    settings on top. `parents` are the (key, name) of the MLflow runs above it.
    """

    id: str
    experiment: str
    model: ModelConfig
    model_identity: str
    stream: StreamConfig
    method: MethodEntry
    code: dict[str, str] = Field(default_factory=dict, description="what its keys were made for, see `keys.code_of`")
    training: TrainingConfig
    evaluation: EvaluationConfig
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    seed: int
    split: Split = Field("test", description="what it is scored on; dev: the test split stays sealed")
    parents: tuple[tuple[str, str], ...] = ()
    tasks: tuple[str, ...]
    scorers: tuple[str, ...] = Field(description="of each task, by name")
    keys: tuple[str, ...]
    score_keys: tuple[tuple[str, ...], ...]
    points_keys: tuple[str, ...] = Field(
        (), description="of each task's scores amid training, where these are asked for"
    )
    probe_names: tuple[str, ...] = Field((), description="the benchmarks that each state takes, beside its tasks")
    probe_keys: tuple[tuple[str, ...], ...] = Field(
        (), description="by tasks seen, then by benchmark of base abilities"
    )
    out: str

    @model_validator(mode="before")
    @classmethod
    def _with_scorers(cls, values: Any) -> Any:
        """Plans of before the field had no score that is not in %, and none whose direction differs."""
        if isinstance(values, Mapping) and "scorers" not in values and "tasks" in values:
            return {**values, "scorers": (DEFAULT_SCORER,) * len(values["tasks"])}
        return values

    def tasks_to_score(self, tasks_seen: int) -> range:
        """The tasks on which the state after so many tasks is scored: all, or with `rows: seen` those alone."""
        if self.evaluation.rows == "seen":
            return range(tasks_seen)
        return range(len(self.tasks))

    def probe_keys_of(self, tasks_seen: int) -> tuple[str, ...]:
        """The names of the results of the benchmarks that the state after so many tasks takes."""
        if not self.probe_keys:
            return ()
        return self.probe_keys[tasks_seen]

    def open_stream(self, why: str = "scores") -> Stream:
        """The data: with the test split sealed while tuning; else each reading of a test split goes to the test-access log."""
        return self.watched(self.stream.build(), why)

    def watched(self, stream: Stream, why: str = "scores") -> Stream:
        """Data that was read already, as this sequence may see it: sealed, or with its own lines in the test-access log."""
        # sealed in each process that opens it: what a trial cannot read it cannot be chosen by
        if self.split == "dev":
            return stream.sealed()
        return stream.watched(self._test_reader(why))

    def note_test_reads(self, stream: Stream, why: str = "scores") -> None:
        """Write to the test-access log that the test splits are read again of a stream that was kept in memory."""
        if self.split == "dev":
            return
        note = self._test_reader(why)
        for task in stream.tasks:
            note(task)

    def note_test_read(self, task: Task, why: str) -> None:
        """Write to the test-access log that one task's test split is read."""
        if self.split == "test":
            self._test_reader(why)(task)

    def _test_reader(self, why: str) -> Callable[[Task], None]:
        return TestAccessLog(folder_at(self.out)).reader(self.experiment, self.id, why)
