"""What an output folder says when a run has ended: every fact by a name, with each value that is said of it.

A fact that is whole has one value, and the same in each run of one experiment. What depends on the clock has no value but
that it is there.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from orchestrator.errors import UserError
from orchestrator.planning.experiment import open_experiment
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import MANIFEST, Store
from orchestrator.store.events import CheckpointSaved, ScoreComputed, SequenceStarted, Step, TaskStarted
from orchestrator.store.identities import MODEL_TAG, SEQUENCE_TAG, TASK_TAG
from orchestrator.store.integrity import file_sha256
from orchestrator.store.journal import Tail, journal_folder
from orchestrator.store.records.event import Event
from orchestrator.store.states.state_files import HISTORY_FILE
from orchestrator.store.view import read_view

Facts = dict[str, list[str]]

# Metrics that are measured with a clock; of `system/` there is one whenever the clock says so
TIMED = ("tokens_per_s", "train_seconds")

POINTS = """
    SELECT s.value, t.value, m.key, m.step, m.value, m.timestamp FROM metrics m
    JOIN tags s ON s.run_uuid = m.run_uuid AND s.key = :sequence JOIN tags t ON t.run_uuid = m.run_uuid AND t.key = :task
"""
RUNS = """
    SELECT s.value, t.value, r.status FROM runs r
    JOIN tags s ON s.run_uuid = r.run_uuid AND s.key = :sequence JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = :task
    WHERE r.lifecycle_stage = 'active'
"""
MODELS = """
    SELECT t.tag_value, k.tag_value FROM logged_models m
    JOIN logged_model_tags t ON t.model_id = m.model_id AND t.tag_key = :model
    JOIN logged_model_tags k ON k.model_id = m.model_id AND k.tag_key = 'key'
    WHERE m.lifecycle_stage = 'active'
"""


def read_facts(out: Path) -> Facts:
    """All facts of an output folder."""
    facts: Facts = defaultdict(list)
    for sequence in sequences_of(out):
        for name, value in (*_said(sequence), *_concluded(sequence), *_stored(sequence)):
            facts[name].append(value)
    for name, value in _copied(out):
        facts[name].append(value)
    return dict(facts)


def sequences_of(out: Path) -> list[SequencePlan]:
    """The sequences of the experiment in an output folder; none where it cannot be read."""
    sequences: list[SequencePlan] = []
    for folder in (out / "experiments").glob("*"):
        with contextlib.suppress(UserError):
            sequences += open_experiment(str(folder), str(out)).sequences
    return sequences


def _said(sequence: SequencePlan) -> Iterator[tuple[str, str]]:
    """What the lines of a journal say, each by itself. Of a fact that is said twice both are given."""
    for event in Tail(journal_folder(sequence.out, sequence.id)).new_events():
        name = _name(event)
        if name:
            yield f"journal of {sequence.id}: {name}", _value(event)


def _name(event: Event) -> str | None:
    """The fact that an event is about; None for starts and other events of which there may be any number."""
    if isinstance(event, TaskStarted):
        return f"start of task {event.task_id}"
    if isinstance(event, Step):
        return f"step {event.step} of task {event.task_id}"
    if isinstance(event, CheckpointSaved):
        return f"state after task {event.task_id}"
    if isinstance(event, ScoreComputed):
        return f"score on task {event.task_id} after {event.tasks_seen} tasks"
    return None


def _value(event: Event) -> str:
    if isinstance(event, Step):
        return repr((event.loss, event.lr, event.grad_norm))
    if isinstance(event, CheckpointSaved):
        return event.key
    if isinstance(event, ScoreComputed):
        return repr((event.score, event.correct, event.n))
    return ""


def _concluded(sequence: SequencePlan) -> Iterator[tuple[str, str]]:
    """What the report makes of a journal."""
    view = read_view(sequence.out, sequence.id)
    yield f"status of {sequence.id}", view.status
    yield f"matrix of {sequence.id}", repr(view.matrix().tolist())


def _stored(sequence: SequencePlan) -> Iterator[tuple[str, str]]:
    """The states, file by file, the losses that their histories have, and the scores."""
    store = Store(Path(sequence.out))
    for task_id, key in enumerate(sequence.keys[1:]):
        state = f"state of {sequence.id} after task {task_id}"
        if not store.has(key):
            continue
        for file in sorted(store.path(key).iterdir()):
            # these two have times in them
            if file.name not in (MANIFEST, HISTORY_FILE):
                yield f"{state}: {file.name}", file_sha256(file)
        for step in store.history(key)["steps"]:
            yield f"{state}: loss of step {step['step']}", repr(step["loss"])
    for tasks_seen, keys in enumerate(sequence.score_keys):
        for task_id in sequence.tasks_to_score(tasks_seen):
            record = store.load_score(keys[task_id])
            if record is not None:
                yield f"stored score of {sequence.id} on task {task_id} after {tasks_seen} tasks", repr(record["score"])


def _copied(out: Path) -> Iterator[tuple[str, str]]:
    """What MLflow's database has, asked without MLflow."""
    for sequence, task, status in _ask(out, RUNS):
        yield f"MLflow: {_run(sequence, task)}", str(status)
    for identity, key in _ask(out, MODELS):
        yield f"MLflow: model {identity}", str(key)
    for sequence, task, metric, step, value, _ in _ask(out, POINTS):
        # two at one step count, whatever the time; how many there are does not
        if not metric.startswith("system/"):
            yield f"MLflow: {metric} at step {step} of {_run(sequence, task)}", "" if metric in TIMED else repr(value)


def _run(sequence: str, task: str) -> str:
    return f"run of {sequence}, task {task}"


def _ask(out: Path, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query; none where the database is missing or broken."""
    names = {"sequence": SEQUENCE_TAG, "task": TASK_TAG, "model": MODEL_TAG}
    uri = f"{(out / 'mlflow.db').absolute().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connected:
            return connected.execute(query, names).fetchall()
    except sqlite3.Error:
        return []


def recorded_times(out: Path) -> Facts:
    """When each step was, as the journals have it."""
    times: Facts = {}
    for sequence in sequences_of(out):
        for event in _first_steps(sequence):
            times[_time_of(sequence.id, event.task_id, event.step)] = [str(event.time)]
    return times


def copied_times(out: Path) -> Facts:
    """When each step was, as MLflow has it."""
    times: Facts = defaultdict(list)
    for sequence, task, metric, step, _, time in _ask(out, POINTS):
        # of the whole sequence, whose number is below zero, there are not all steps
        if metric == "loss" and int(task) >= 0:
            times[_time_of(sequence, task, step)].append(str(time))
    return dict(times)


def _time_of(sequence_id: str, task_id: int | str, step: int) -> str:
    return f"MLflow and journals: time of step {step} of {sequence_id}, task {task_id}"


def _first_steps(sequence: SequencePlan) -> Iterator[Step]:
    """Each step as it was first recorded."""
    known: set[tuple[int, int]] = set()
    for event in Tail(journal_folder(sequence.out, sequence.id)).new_events():
        if isinstance(event, Step) and (event.task_id, event.step) not in known:
            known.add((event.task_id, event.step))
            yield event


def _starts(sequence: SequencePlan) -> Iterator[float]:
    """When workers took the sequence up, in seconds since 1970."""
    for event in Tail(journal_folder(sequence.out, sequence.id)).new_events():
        if isinstance(event, SequenceStarted):
            yield event.time / 1000


def first_step_after(out: Path, began: float, of_new_start: bool) -> float | None:
    """When the first step was recorded that is new since then, in seconds since 1970; None where there is none.

    `of_new_start`: only one of workers that were started since. Those of a driver that was killed go on for a few seconds.
    """
    times: list[float] = []
    for sequence in sequences_of(out):
        since = [began]
        if of_new_start:
            since = [time for time in _starts(sequence) if time >= began]
        for event in _first_steps(sequence):
            # nothing is new in a sequence that was not started again
            if since and event.time / 1000 >= since[0]:
                times.append(event.time / 1000)
    return min(times, default=None)


def repeated_seconds(out: Path) -> float:
    """The seconds of the steps that were trained again.

    A journal has each step as it was first taken, and a state's history as it was taken on the way to that state.
    """
    seconds = 0.0
    for sequence in sequences_of(out):
        store = Store(Path(sequence.out))
        first: dict[tuple[int, int], int] = {}
        for event in _first_steps(sequence):
            first[event.task_id, event.step] = event.time
        for key in sequence.keys[1:]:
            # what another sequence trained is none of this one's repetition
            if store.has(key) and store.maker(key) == sequence.id:
                seconds += _seconds_again(store.history(key)["steps"], first)
    return round(seconds, 3)


def _seconds_again(steps: Iterable[dict[str, Any]], first: dict[tuple[int, int], int]) -> float:
    """So many steps as are on record with an earlier time, each as long as half of the steps are at most."""
    again = 0
    durations: list[int] = []
    before: int | None = None
    for step in steps:
        time = step["time"]
        if first.get((step["task_id"], step["step"]), time) < time:
            again += 1
        if before is not None:
            durations.append(time - before)
        before = time
    return again * median(durations or [0]) / 1000


def finished_states(out: Path) -> dict[str, int]:
    """The states that are complete by now, with the time of their manifest: one that is made again has a later one."""
    store = Store(out)
    times: dict[str, int] = {}
    for key in store.all_keys():
        with contextlib.suppress(FileNotFoundError):
            times[key] = (store.path(key) / MANIFEST).stat().st_mtime_ns
    return times
