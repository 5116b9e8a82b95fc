"""The keys of checkpoints and scores: each names what it stands for by all that made it, and by nothing else.

Two runs that did the same so far have the same key, whoever asks, so what one has trained or scored no other computes
again. What is left out of a key is therefore as deliberate as what is in it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import socket
from collections.abc import Sequence
from typing import Any

from methods import Context
from orchestrator.config.method import MethodEntry
from orchestrator.config.model import CHOOSING, ModelConfig
from orchestrator.config.running import DuringConfig
from orchestrator.config.training import TrainingConfig, outer_factor
from orchestrator.models.weights.other_models import identity_of
from orchestrator.planning.sequence_plan import SequencePlan, Split
from streams import DEFAULT_SCORER, FROM_LIKELIHOOD, SCORER_VERSIONS, Stream, Task

# Part of every key, so that files in an older layout are made again instead of misread, and so that what training itself
# computes otherwise than before is trained again. 2: the fields of steps, scores and resume states have new names, and a
# score's file carries a checksum. 3: methods compute what their papers say where they did not. 4: a global batch is cut into
# micro-batches by length, which decides what dropout drops.
CHECKPOINT_FORMAT = 4
SCORE_FORMAT = 2
POINTS_FORMAT = 1


def code_of(method: MethodEntry) -> dict[str, str]:
    """What code a method runs, in a few words: this project's, and each part's by the name that it has in keys."""
    return {"this project": f"checkpoint format {CHECKPOINT_FORMAT}", **method.spec.code}


def check_unchanged(sequence: SequencePlan, stream: Stream) -> None:
    """Raises ValueError where code or data is not that of the plan: what it trains would go under another one's key."""
    _check_code(sequence)
    if not is_unchanged(sequence, stream):
        raise ValueError(f"the data of stream {stream.name!r} has changed since the experiment was planned")


def is_unchanged(sequence: SequencePlan, stream: Stream) -> bool:
    """Whether data is that of the plan: whether it gives the plan's keys."""
    keys = state_keys(
        sequence.model, sequence.model_identity, stream, sequence.method, sequence.training, sequence.seed
    )
    scores = score_keys(keys, sequence.model, stream, sequence.method, sequence.split)
    return tuple(keys) == sequence.keys and scores == sequence.score_keys


def _check_code(sequence: SequencePlan) -> None:
    """Refuses another code than the driver's, as where a node has an older copy of a user's plug-in."""
    for name, here in code_of(sequence.method).items():
        planned = sequence.code.get(name, "an earlier version")
        if here != planned:
            raise ValueError(
                f"{name} on node {socket.gethostname()} is not what the experiment was planned with ({here} there, "
                f"{planned} in the plan): give every node the same code, and the command again"
            )


def state_keys(
    model: ModelConfig, identity: str, stream: Stream, method: MethodEntry, training: TrainingConfig, seed: int
) -> list[str]:
    """T+1 hashes; the t-th is over everything that can have influenced the weights after task t (0: before any).

    Absent on purpose: the number of workers, the micro-batch, and whether blocks are compiled or computed again, because
    results do not depend on them; the later tasks, so that a longer stream continues a shorter one; plug-ins while they do
    nothing, so that methods share the tasks that they train alike; and names, of the experiment, of the stream and of the
    method.
    """
    # a model that a setting names is known by its content, as the run's own is
    stack = method.spec.build(Context(seed, model_identity=functools.partial(identity_of, model)))
    reading = model.model_dump(include={"scoring", "input", "precision", "max_source", "max_target"})
    # what is trained is the same: a state serves each way of answering
    if model.scoring in CHOOSING:
        reading["scoring"] = "auto"
    # added later: every older checkpoint was trained with the defaults
    for setting, default in (("base", "float32"), ("attention", "auto")):
        if getattr(model, setting) != default:
            reading[setting] = getattr(model, setting)
    if model.base == "bf16":
        # what grew beside such a base was once bf16 too
        reading["grown"] = "float32"
    initial_key = content_key(CHECKPOINT_FORMAT, identity, reading, dict(stack.initial_cache_fields()), seed)
    keys = [initial_key]
    kind = method.run_kind
    num_tasks = len(stream.tasks)
    for task_id, task in enumerate(stream.tasks):
        if not kind.is_trained(task_id, num_tasks):
            keys.append(_untrained_key(initial_key))
            continue
        position = kind.task_position(task_id)
        outer = outer_factor(training, position, kind.schedule_horizon(num_tasks))
        settings, length = _settings_and_length(training, task, outer, method.spec.trains_by_gradient)
        data = _content_of(stream.tasks, kind.tasks_to_train(task_id, num_tasks))
        # The key before is part of the key after: so a key covers every earlier task, in order, with the settings that
        # held then, and no state can be reached on two ways that left different weights.
        keys.append(content_key(keys[-1], data, dict(stack.cache_fields(position)), settings, length))
    return keys


def _untrained_key(initial_key: str) -> str:
    """The key after a task whose turn trains nothing: no checkpoint is ever written under it."""
    return content_key(initial_key, "untrained")


def _content_of(tasks: Sequence[Task], task_ids: range) -> str | list[str]:
    """The content of what is trained on in one turn; of a single task its bare hash, as older checkpoints have it."""
    hashes = [tasks[task_id].train_hash for task_id in task_ids]
    if len(hashes) == 1:
        return hashes[0]
    return hashes


def _settings_and_length(
    training: TrainingConfig, task: Task, outer: float, trains_by_gradient: bool
) -> tuple[dict[str, Any], Any]:
    """(training settings, epochs or budget) of one task; nothing at all where a method makes no gradient steps."""
    if not trains_by_gradient:
        return {}, 0
    settings = _lasting_settings(training)
    # the schedule's value, not its name: the first task has the factor 1 under each of them and is shared
    if outer != 1:
        settings["outer"] = outer
    if training.budget is not None:
        return settings, training.budget.model_dump(exclude_none=True)
    return settings, training.epochs_of(task.name)


def _lasting_settings(training: TrainingConfig) -> dict[str, Any]:
    """The settings that count in every task.

    A setting that was added to the configuration later counts only where it is set: its default is what every older
    checkpoint was trained with, and must not rename them.
    """
    absent = {"micro_batch", "checkpoint_activations", "compile", "epochs", "epochs_per_task", "budget", "outer"}
    if not training.lrs:
        absent.add("lrs")
    if training.schedule != "infinite":
        absent.add("infinite")
    # a state that was trained without it must not be taken for one that can be made again bit for bit
    if not training.deterministic:
        absent.add("deterministic")
    settings = training.model_dump(exclude=absent)
    # what is meant, whether or not it was written: a schedule has a warm-up of its own
    settings["warmup"] = training.warmup_share
    return settings


def score_keys(
    keys: Sequence[str], model: ModelConfig, stream: Stream, method: MethodEntry, split: Split
) -> tuple[tuple[str, ...], ...]:
    """[T+1][T]: by tasks seen, then by task, the name of a state's score on a task's split.

    Absent on purpose: the batch of the evaluation, which changes no answer, and how the state was trained, which its
    own key says. The labels of the whole stream compete where a model does not generate, so they are in every key.
    """
    labels = stream.labels_until(len(stream.tasks))
    # only such a method answers one text differently for two positions of its task
    is_told_position = any("task labels" in part.card.needs for part in method.types)
    all_keys = []
    for state in states_of(keys):
        keys_of_state = []
        for position, task in enumerate(stream.tasks):
            parts: list[Any] = [SCORE_FORMAT, state, task.split_hash(split), model.max_target, labels]
            if is_told_position:
                parts.append(position)
            parts.extend(_scorer_parts(task))
            parts.extend(_way_to_answer(model, task))
            keys_of_state.append(content_key(*parts))
        all_keys.append(tuple(keys_of_state))
    return tuple(all_keys)


def points_keys(
    keys: Sequence[str], model: ModelConfig, stream: Stream, split: Split, during: DuringConfig, generates: bool
) -> tuple[str, ...]:
    """[T]: by task, the name of its scores amid training: by the state that it led to, and by what was scored when.

    The state's own key names all that was done on the way to it. The stream's labels count where answers are chosen among
    them alone: so the expert of a stream's first task has the points of whoever has trained it in a sequence.
    """
    labels = () if generates else stream.labels_until(len(stream.tasks))
    names = []
    scored: list[Any] = []
    for state, task in zip(keys[1:], stream.tasks, strict=True):
        scored.append([task.split_hash(split), *_scorer_parts(task), *_way_to_answer(model, task)])
        names.append(
            content_key("points", POINTS_FORMAT, state, scored, model.max_target, labels, during.every, during.examples)
        )
    return tuple(names)


def states_of(keys: Sequence[str]) -> list[str]:
    """What names each state for its scores: an untrained one is the initial model, scored once, however many tasks pass."""
    untrained = _untrained_key(keys[0])
    return [keys[0] if key == untrained else key for key in keys]


def _scorer_parts(task: Task) -> list[list[Any]]:
    """The scorer with its version; absent for the first version of the default one, which all older scores are of."""
    identity = [task.scorer, SCORER_VERSIONS[task.scorer]]
    if identity == [DEFAULT_SCORER, 1]:
        return []
    return [identity]


def _way_to_answer(model: ModelConfig, task: Task) -> list[list[str]]:
    """How answers are chosen where that is no part of the model; absent where nothing is answered, and no way to."""
    if model.scoring in CHOOSING and task.scorer not in FROM_LIKELIHOOD:
        return [["answered by", model.scoring]]
    return []


def content_key(*parts: Any) -> str:
    """32 hexadecimal digits that name plain values by their content, whatever the order of a mapping's keys."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=list).encode()).hexdigest()[:32]
