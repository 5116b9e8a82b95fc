"""TODO orchestrator.planning.keys"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from methods import Context
from orchestrator.config.method import MethodEntry
from orchestrator.config.model import ModelConfig
from orchestrator.config.training import TrainingConfig, outer_factor
from orchestrator.planning.sequence_plan import SequencePlan, Split
from streams import Stream

# Part of every key, so that files in an older layout are made again instead of misread. 2: the fields of steps, scores and
# resume states have new names, and a score's file carries a checksum.
CHECKPOINT_FORMAT = 2
SCORE_FORMAT = 2


def check_unchanged(sequence: SequencePlan, stream: Stream) -> None:
    """Raises ValueError where the data is not that of the plan: what it trains would go under another content's key."""
    keys = state_keys(
        sequence.model, sequence.model_identity, stream, sequence.method, sequence.training, sequence.seed
    )
    cells = score_keys(keys, sequence.model, stream, sequence.method, sequence.split)
    if tuple(keys) != sequence.keys or cells != sequence.score_keys:
        raise ValueError(f"the data of stream {stream.name!r} has changed since the experiment was planned")


def state_keys(
    model: ModelConfig, identity: str, stream: Stream, method: MethodEntry, training: TrainingConfig, seed: int
) -> list[str]:
    """T+1 chained hashes; the t-th is over everything that can have influenced the weights after task t.

    Absent on purpose: the number of workers, the micro-batch, the later tasks, and plug-ins while they do nothing.
    """
    stack = method.spec.build(Context(seed))
    reading = model.model_dump(include={"scoring", "input", "precision", "max_source", "max_target"})
    keys = [_sha(CHECKPOINT_FORMAT, identity, reading, dict(stack.initial_cache_fields()), seed)]
    settings = _influential(training)
    budget = training.budget.model_dump(exclude_none=True) if training.budget else None
    kind, num_tasks = method.run_kind, len(stream.tasks)
    for t, task in enumerate(stream.tasks):
        if not kind.is_trained(t, num_tasks):
            keys.append(_sha(keys[0], "untrained"))
            continue
        position = kind.task_position(t)
        outer = outer_factor(training, position, kind.schedule_horizon(num_tasks))
        rates = settings if outer == 1 else settings | {"outer": outer}
        length = budget or training.epochs_of(task.name)
        rates, length = (rates, length) if method.spec.trains_by_gradient else ({}, 0)
        hashes = [stream.tasks[i].train_hash for i in kind.tasks_to_train(t, num_tasks)]
        data = hashes if len(hashes) > 1 else hashes[0]
        keys.append(_sha(keys[-1], data, dict(stack.cache_fields(position)), rates, length))
    return keys


def _influential(training: TrainingConfig) -> dict[str, Any]:
    """The settings that count in every task. One that came later counts where it is set: it must rename no older checkpoint."""
    unset = {"lrs"} if not training.lrs else set()
    unset |= {"infinite"} if training.schedule != "infinite" else set()
    return training.model_dump(exclude={"micro_batch", "epochs", "epochs_per_task", "budget", "outer"} | unset)


def score_keys(
    keys: Sequence[str], model: ModelConfig, stream: Stream, method: MethodEntry, split: Split
) -> tuple[tuple[str, ...], ...]:
    """[T+1][T]: each names the score of one state on one task's split.

    The labels of the whole stream compete where the model does not generate, so they belong to it; and the task's place,
    where the method is told it.
    """
    labels = stream.labels_until(len(stream.tasks))
    told = any("task labels" in part.card.needs for part in method.types)
    columns = [(task.split_hash(split), *([j] if told else [])) for j, task in enumerate(stream.tasks)]
    states = [keys[0] if key == _sha(keys[0], "untrained") else key for key in keys]
    return tuple(
        tuple(_sha(SCORE_FORMAT, key, data[0], model.max_target, labels, *data[1:]) for data in columns)
        for key in states
    )


def _sha(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=list).encode()).hexdigest()[:32]
