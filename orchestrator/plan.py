"""From a configuration to the sequences that it asks for, and the keys that name what each of them makes."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

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
from orchestrator.models import find_model
from streams import Stream

CHECKPOINT_FORMAT = 1
CELL_FORMAT = 1


class Sequence(Section):
    """One (model, stream, method, settings, seed), trained from its first task to its last.

    `keys[t]` names the state after task t (`keys[0]`: before training) by all that made it, `cell_keys[t][j]` its score on
    task j, and `id` the sequence by its name and all of these.
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
    tasks: tuple[str, ...]
    keys: tuple[str, ...]
    cell_keys: tuple[tuple[str, ...], ...]
    out: str

    def epochs(self, task: str) -> int:
        """Epochs of a task."""
        return self.training.epochs_per_task.get(task, self.training.epochs)


def plan(config: RunConfig, gpu: bool = False) -> list[Sequence]:
    """The sequences of an experiment, all checked: models found, data read, keys computed. Raises UserError.

    `gpu` says whether training runs on GPUs, which decides what precision "auto" means.
    """
    try:
        return _plan(config, gpu)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from error


def _plan(config: RunConfig, gpu: bool) -> list[Sequence]:
    source = find_model(config.model)
    family = family_of(source, config.model)
    for method in config.methods:
        if not family.generates and any(part.requires_generation for part in method.types):
            raise UserError(
                f"methods: {method.label!r} needs a model that generates text; {config.model.name!r} is an encoder"
            )
    precision = ("bf16" if gpu else "float32") if config.model.precision == "auto" else config.model.precision
    model = config.model.model_copy(update={"precision": precision})
    sequences = []
    for stream_config in (s.located() for s in config.streams):
        stream = stream_config.build()
        _check_epochs(config, stream)
        for method in config.methods:
            for seed in config.seeds:
                training = config.training_for(method)
                keys = state_keys(model, source.identity, stream, method, training, seed)
                cells = cell_keys(keys, model, stream, method)
                name = f"{method.label}-{stream.name}-s{seed}"
                sequences.append(
                    Sequence(
                        id=f"{re.sub(r'[^A-Za-z0-9.]+', '-', name)}-{_sha(name, cells)[:8]}",
                        experiment=config.name,
                        model=model,
                        model_identity=source.identity,
                        stream=stream_config,
                        method=method,
                        training=training,
                        evaluation=config.evaluation,
                        seed=seed,
                        tasks=tuple(task.name for task in stream.tasks),
                        keys=tuple(keys),
                        cell_keys=cells,
                        out=config.out,
                    )
                )
    return sequences


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
    cells = cell_keys(keys, sequence.model, stream, sequence.method)
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
    settings = training.model_dump(exclude={"micro_batch", "epochs", "epochs_per_task"})
    for t, task in enumerate(stream.tasks):
        epochs = training.epochs_per_task.get(task.name, training.epochs)
        keys.append(_sha(keys[-1], task.train_hash, dict(stack.influence(t)), settings, epochs))
    return keys


def cell_keys(keys: list[str], model: ModelConfig, stream: Stream, method: MethodEntry) -> tuple[tuple[str, ...], ...]:
    """Names the score of each state on each task. The labels of the whole stream compete, so they belong to it; and the
    task's place, where the method is told it.
    """
    labels = stream.labels_until(len(stream.tasks))
    told = any("task labels" in part.needs for part in method.types)
    columns = [(task.test_hash, *([j] if told else [])) for j, task in enumerate(stream.tasks)]
    return tuple(
        tuple(_sha(CELL_FORMAT, key, test[0], model.max_target, labels, *test[1:]) for test in columns) for key in keys
    )


def _sha(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=list).encode()).hexdigest()[:32]
