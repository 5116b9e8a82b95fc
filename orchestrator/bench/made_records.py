"""Records of an experiment that nobody trained: journals, states and scores in the real format, as many as a bench asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from orchestrator.config.experiment import RunConfig
from orchestrator.planning.experiment import Experiment
from orchestrator.planning.keys import content_key
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import State, Store
from orchestrator.store.events import (
    CheckpointSaved,
    ScoreComputed,
    SequenceFinished,
    SequenceStarted,
    Step,
    TaskStarted,
)
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.store.records.event import Event
from streams import DEFAULT_SCORER

# an instant in milliseconds: what is copied twice must have the same times
BEGIN = 1_700_000_000_000
VERSIONS = {"torch": "0.0", "transformers": "0.0"}


@dataclass(frozen=True)
class Size:
    """How many sequences there are, of how many tasks, each of how many steps."""

    sequences: int
    tasks: int
    steps: int


def make_experiment(out: Path, size: Size) -> Experiment:
    """A finished experiment: its plan, its states and scores, which all sequences share, and a journal for each sequence."""
    config = RunConfig.model_validate({"name": "scale", "methods": ["ft"], "streams": ["embedded"], "out": str(out)})
    tasks = tuple(f"task-{number:02d}" for number in range(1, size.tasks + 1))
    keys = tuple(content_key("state", number) for number in range(size.tasks + 1))
    score_keys = []
    for key in keys:
        score_keys.append(tuple(content_key(key, task) for task in tasks))
    sequences = []
    for seed in range(size.sequences):
        sequences.append(
            SequencePlan(
                id=f"ft-made-s{seed}",
                experiment="scale",
                model=config.model,
                model_identity="none",
                stream=config.streams[0],
                method=config.methods[0],
                training=config.training,
                evaluation=config.evaluation,
                seed=seed,
                tasks=tasks,
                scorers=(DEFAULT_SCORER,) * len(tasks),
                keys=keys,
                score_keys=tuple(score_keys),
                out=str(out),
            )
        )
    experiment = Experiment(config, tuple(sequences))
    experiment.save()
    _write_store(sequences[0])
    for sequence in sequences:
        write_journal(sequence, size.steps)
    return experiment


def long_sequence(out: Path, experiment: Experiment, steps: int) -> SequencePlan:
    """One more sequence, whose first task alone has so many steps, with its journal."""
    first = experiment.sequences[0]
    changes = {
        "id": "ft-made-long",
        "tasks": first.tasks[:1],
        "scorers": first.scorers[:1],
        "keys": first.keys[:2],
        "score_keys": tuple(keys[:1] for keys in first.score_keys[:2]),
    }
    sequence = first.model_copy(update=changes)
    write_journal(sequence, steps)
    return sequence


def _write_store(sequence: SequencePlan) -> None:
    """The states and scores of all sequences: they have the same keys, so that few files stand for many."""
    store = Store(Path(sequence.out))
    for key in sequence.keys[1:]:
        history = {"seconds": 1.0, "steps": [], "usage": {}, "diagnostics": {}}
        state = State({"weight": torch.zeros(1)}, {}, history)
        store.save(key, state, {"sequence": sequence.id, "versions": VERSIONS})
    for tasks_seen in range(len(sequence.keys)):
        for event in _scores(sequence, tasks_seen):
            record = event.model_dump(include={"score", "score_options", "correct", "n", "seconds"})
            store.save_score(event.key, record)


def write_journal(sequence: SequencePlan, steps: int) -> None:
    """The journal of a sequence that has finished, with so many steps in each task."""
    journal = Journal(journal_folder(sequence.out, sequence.id))
    data = [_data_of(task) for task in sequence.tasks]
    journal.append(
        SequenceStarted(
            time=BEGIN,
            id=sequence.id,
            tasks=sequence.tasks,
            sequence=sequence.model_dump(mode="json", exclude={"score_keys", "probe_keys"}),
            data=data,
            workers=1,
            device="cpu",
            versions=VERSIONS,
            git_commit=None,
            machine="none",
        )
    )
    journal.append_all(_scores(sequence, 0))
    for task_id in range(len(sequence.tasks)):
        journal.append_all(_task_events(sequence, task_id, steps))
        journal.append_all(_scores(sequence, task_id + 1))
    journal.append(SequenceFinished(time=BEGIN))


def _data_of(task: str) -> dict[str, object]:
    sizes = {"train": 100, "dev": 0, "test": 100}
    dropped = {"train": 0, "test": 0}
    return {"task": task, "source": "none", "sizes": sizes, "dropped_rows": dropped, "train_sha256": "0" * 64}


def _task_events(sequence: SequencePlan, task_id: int, steps: int) -> list[Event]:
    task = sequence.tasks[task_id]
    first = task_id * steps
    events: list[Event] = [TaskStarted(time=BEGIN + first, task_id=task_id, task=task, steps=steps, reused=False)]
    for step in range(1, steps + 1):
        # numbers with as many digits as measured ones have, which decide how long a line is
        loss = 3.0 / (1.0 + step / 7.0) + sequence.seed / 1e6
        norm = 1.0 / (1.0 + loss)
        events.append(
            Step(
                time=BEGIN + first + step, task_id=task_id, step=step, loss=loss, lr=1e-4 / step, grad_norm=norm,
                tokens_per_s=1e4 * norm,
            )
        )  # fmt: skip
    key = sequence.keys[task_id + 1]
    usage = {"steps": steps, "tokens": 1000 * steps, "flops": 1e9 * steps}
    events.append(
        CheckpointSaved(
            time=BEGIN + first + steps, task_id=task_id, task=task, key=key, path=f"{sequence.out}/checkpoints/{key}",
            bytes=4, seconds=1.0, usage=usage, reused=False, diagnostics={}, versions=VERSIONS,
        )
    )  # fmt: skip
    return events


def _scores(sequence: SequencePlan, tasks_seen: int) -> list[ScoreComputed]:
    events = []
    for task_id, key in enumerate(sequence.score_keys[tasks_seen]):
        # what was learnt scores high, less so the longer ago it was; what is to come scores low
        percent = 10.0
        if task_id < tasks_seen:
            percent = 80.0 - (tasks_seen - task_id)
        events.append(
            ScoreComputed(
                time=BEGIN + tasks_seen, tasks_seen=tasks_seen, task_id=task_id, task=sequence.tasks[task_id], key=key,
                score=percent, score_options=None, correct=int(percent), n=100, seconds=0.1,
            )
        )  # fmt: skip
    return events
