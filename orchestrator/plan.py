"""From a configuration to the sequences that it asks for, and the keys that name what each of them makes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from collections.abc import Sequence as Many
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from methods import Context
from orchestrator.config import (
    EvaluationConfig,
    MethodEntry,
    ModelConfig,
    RunConfig,
    Section,
    StreamConfig,
    TrainingConfig,
)
from orchestrator.errors import UserError
from orchestrator.families import family_of
from orchestrator.ledger import Ledger
from orchestrator.models import find_model
from orchestrator.schedules import outer_factor
from streams import Stream, Task

Split = Literal["dev", "test"]
CHECKPOINT_FORMAT = 1
CELL_FORMAT = 1


class Sequence(Section):
    """One (model, stream, method, settings, seed), trained from its first task to its last.

    `keys[t]` names the state after task t (`keys[0]`: before training) by all that made it, `cell_keys[t][j]` its score on
    task j, and `id` the sequence by its name and all of these. `parents` are the (key, name) of the MLflow runs above it.
    """

    id: str
    experiment: str
    model: ModelConfig
    model_identity: str
    stream: StreamConfig
    method: MethodEntry
    training: TrainingConfig
    evaluation: EvaluationConfig
    seed: int
    split: Split = Field("test", description="what it is scored on; dev: the test split stays sealed")
    parents: tuple[tuple[str, str], ...] = ()
    tasks: tuple[str, ...]
    keys: tuple[str, ...]
    cell_keys: tuple[tuple[str, ...], ...]
    out: str

    def open_stream(self, why: str = "scores") -> Stream:
        """The data: with the test split sealed while tuning; else each reading of a test split goes to the ledger."""
        stream = self.stream.build()
        if self.split == "dev":
            return stream.sealed()
        return stream.watched(Ledger(Path(self.out)).reader(self.experiment, self.id, why))


def plan(config: RunConfig, gpu: bool = False) -> list[Sequence]:
    """The sequences of an experiment, all checked: models found, data read, keys computed. Raises UserError.

    `gpu` says whether training runs on GPUs, which decides what precision "auto" means.
    """
    planner = Planner(config, gpu)
    sequences = [
        sequence
        for stream in config.streams
        for method in config.methods
        for seed in config.seeds
        for sequence in planner.sequences(method, stream, seed)
    ]
    planner.note_reads()
    return sequences


class Planner:
    """Plans sequences of one experiment: finds the model once and reads each stream once. Raises UserError."""

    def __init__(self, config: RunConfig, gpu: bool = False, why: str = "hashes alone, for the keys") -> None:
        self.config, self.why = config, why
        with _as_user_error():
            self.source = find_model(config.model)
            self.family = family_of(self.source, config.model)
        for method in config.methods:
            if not self.family.generates and any(part.requires_generation for part in method.types):
                raise UserError(
                    f"methods: {method.label!r} needs a model that generates text; {config.model.name!r} is an encoder"
                )
        precision = ("bf16" if gpu else "float32") if config.model.precision == "auto" else config.model.precision
        self.model = config.model.model_copy(update={"precision": precision})
        self._streams: dict[tuple[StreamConfig, Split], Stream] = {}
        self._read: list[Task] = []

    def stream(self, stream: StreamConfig, split: Split = "test") -> Stream:
        """The stream's data, read for its content's hash; sealed where it is for tuning (`split` "dev")."""
        place = (stream.located(), split)
        if place not in self._streams:
            with _as_user_error():
                built = place[0].build()
                built = built.sealed() if split == "dev" else built.watched(self._read.append)
                _check_dev(built, split)
                if not stream.only:
                    _check_epochs(self.config, built)
            self._streams[place] = built
        return self._streams[place]

    def note_reads(self) -> None:
        """Write to the ledger which test splits were read. Called when all is checked: what is refused leaves nothing."""
        note = Ledger(Path(self.config.out)).reader(self.config.name, "plan", self.why)
        while self._read:
            note(self._read.pop(0))

    def sequences(
        self,
        method: MethodEntry,
        stream: StreamConfig,
        seed: int,
        split: Split = "test",
        prefix: str = "",
        parents: tuple[tuple[str, str], ...] = (),
    ) -> list[Sequence]:
        """The one sequence of a method; of experts one a task. `prefix` goes before a name."""
        if method.bound != "expert":
            return [self._sequence(method, stream, seed, split, prefix, parents)]
        only = [stream.model_copy(update={"only": task.name}) for task in self.stream(stream, split).tasks]
        return [self._sequence(method, part, seed, split, prefix, parents) for part in only]

    def _sequence(
        self,
        method: MethodEntry,
        stream: StreamConfig,
        seed: int,
        split: Split,
        prefix: str,
        parents: tuple[tuple[str, str], ...],
    ) -> Sequence:
        data = self.stream(stream, split)
        with _as_user_error():
            training = self.config.training_for(method)
            keys = state_keys(self.model, self.source.identity, data, method, training, seed)
            cells = cell_keys(keys, self.model, data, method, split)
        name = "-".join([prefix + method.label, data.name, *([stream.only] if stream.only else []), f"s{seed}"])
        return Sequence(
            id=f"{re.sub(r'[^A-Za-z0-9.]+', '-', name)}-{_sha(name, cells)[:8]}",
            experiment=self.config.name,
            model=self.model,
            model_identity=self.source.identity,
            stream=stream.located(),
            method=method.model_copy(update={"space": {}}),
            training=training,
            evaluation=self.config.evaluation,
            seed=seed,
            split=split,
            parents=parents,
            tasks=tuple(task.name for task in data.tasks),
            keys=tuple(keys),
            cell_keys=cells,
            out=self.config.out,
        )


@contextlib.contextmanager
def _as_user_error() -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from error


def _check_dev(stream: Stream, split: Split) -> None:
    for task in stream.tasks if split == "dev" else ():
        if not task.has_dev:
            raise UserError(
                f"search.streams: task {task.name!r} of stream {stream.name!r} has no dev split; raise dev_fraction"
            )


def _check_epochs(config: RunConfig, stream: Stream) -> None:
    names = [task.name for task in stream.tasks]
    for name in (name for m in config.methods for name in config.training_for(m).epochs_per_task):
        if name not in names:
            raise UserError(
                f"training.epochs_per_task: stream {stream.name!r} has no task {name!r}: {', '.join(names)}"
            )


def check_unchanged(sequence: Sequence, stream: Stream) -> None:
    """Raises ValueError where the data is not that of the plan: what it trains would go under another content's key."""
    keys = state_keys(
        sequence.model, sequence.model_identity, stream, sequence.method, sequence.training, sequence.seed
    )
    cells = cell_keys(keys, sequence.model, stream, sequence.method, sequence.split)
    if tuple(keys) != sequence.keys or cells != sequence.cell_keys:
        raise ValueError(f"the data of stream {stream.name!r} has changed since the experiment was planned")


def state_keys(
    model: ModelConfig, identity: str, stream: Stream, method: MethodEntry, training: TrainingConfig, seed: int
) -> list[str]:
    """T+1 chained hashes; the t-th is over everything that can have influenced the weights after task t.

    Absent on purpose: the number of workers, the micro-batch, the later tasks, and plug-ins while they do nothing.
    """
    stack = method.spec.build(Context(seed))
    reading = model.model_dump(include={"scoring", "input", "precision", "max_source", "max_target"})
    keys = [_sha(CHECKPOINT_FORMAT, identity, reading, dict(stack.origin()), seed)]
    settings = _influential(training)
    budget = training.budget.model_dump(exclude_none=True) if training.budget else None
    passed: list[str] = []  # tasks that are trained with a later one
    for t, task in enumerate(stream.tasks):
        if not is_trained(method, t, len(stream.tasks)):
            keys.append(_sha(keys[0], "untrained"))
            passed.append(task.train_hash)
            continue
        place = place_of(method, t)
        outer = outer_factor(training, place, len(stream.tasks))
        rates = settings if outer == 1 else settings | {"outer": outer}
        length = budget or training.epochs_of(task.name)
        rates, length = (rates, length) if method.spec.optimizes else ({}, 0)
        data = [*passed, task.train_hash] if passed else task.train_hash
        keys.append(_sha(keys[-1], data, dict(stack.influence(place)), rates, length))
    return keys


def is_trained(method: MethodEntry, task_id: int, tasks: int) -> bool:
    """Whether a task is trained on when its turn comes. Joint training comes with the last one, on the data of all."""
    return method.bound != "zero-shot" and (method.bound != "joint" or task_id == tasks - 1)


def place_of(method: MethodEntry, task_id: int) -> int:
    """Which task of its sequence a task is to the method: joint training is one task, the first."""
    return 0 if method.bound == "joint" else task_id


def _influential(training: TrainingConfig) -> dict[str, Any]:
    """The settings that count in every task. One that came later counts where it is set: it must rename no older checkpoint."""
    unset = {"lrs"} if not training.lrs else set()
    unset |= {"infinite"} if training.schedule != "infinite" else set()
    return training.model_dump(exclude={"micro_batch", "epochs", "epochs_per_task", "budget", "outer"} | unset)


def cell_keys(
    keys: Many[str], model: ModelConfig, stream: Stream, method: MethodEntry, split: Split
) -> tuple[tuple[str, ...], ...]:
    """[T+1][T]: each names the score of one state on one task's split.

    The labels of the whole stream compete where the model does not generate, so they belong to it; and the task's place,
    where the method is told it.
    """
    labels = stream.labels_until(len(stream.tasks))
    told = any("task labels" in part.needs for part in method.types)
    columns = [(task.split_hash(split), *([j] if told else [])) for j, task in enumerate(stream.tasks)]
    states = [keys[0] if key == _sha(keys[0], "untrained") else key for key in keys]
    return tuple(
        tuple(_sha(CELL_FORMAT, key, data[0], model.max_target, labels, *data[1:]) for data in columns)
        for key in states
    )


def _sha(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=list).encode()).hexdigest()[:32]
