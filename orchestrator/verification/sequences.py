"""The files of one sequence: its journal, its states, its scores and the answers that these are from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.planning.recovery import has_lost_facts
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.store.journal import journal_folder
from orchestrator.store.predictions import DamagedPredictions, load_predictions, predictions_file
from orchestrator.store.scores import score_file
from orchestrator.store.view import View
from orchestrator.training.scoring import tasks_trained
from orchestrator.verification.findings import Finding, Remedy
from orchestrator.verification.lines import damaged_lines, is_whole_event


def damaged_journal(sequence: SequencePlan, view: View) -> Iterator[Finding]:
    """The damaged lines of a sequence's journal, and that it lacks lines which it once had."""
    folder = journal_folder(sequence.out, sequence.id)
    num_damaged = 0
    for file in sorted(folder.glob("*.jsonl")):
        for finding in damaged_lines(file, is_whole_event, Remedy.FROM_STORE):
            num_damaged += 1
            yield finding
    store = Store(Path(sequence.out))
    if num_damaged:
        return
    if has_lost_facts(view):
        yield Finding(folder, "lines are missing", Remedy.FROM_STORE)
    elif view.start is None and any(store.has(key) and store.maker(key) == sequence.id for key in sequence.keys[1:]):
        yield Finding(folder, "it is missing, and states are there that the sequence made", Remedy.TRAIN)


def damaged_state(sequence: SequencePlan, view: View, tasks_seen: int) -> Iterator[Finding]:
    """Whether a state that was made is no longer what was written."""
    store = Store(Path(sequence.out))
    key = sequence.keys[tasks_seen]
    if store.path(key).exists():
        # of a difference from a state that is damaged the files are sound all the same, and serve when that one is made again
        if not store.has_sound_files(key):
            yield Finding(store.path(key), "its files are not what was written", Remedy.TRAIN)
        return
    task = view.by_task.get(tasks_seen - 1)
    if task is not None and task.checkpoint is not None:
        yield Finding(store.path(key), "it is missing", Remedy.TRAIN)


def damaged_scores(sequence: SequencePlan, view: View, tasks_seen: int) -> Iterator[Finding]:
    """The scores of one state, and the answers beside them, that are not what was written."""
    store = Store(Path(sequence.out))
    recorded = recorded_scores(view)
    again = Remedy.EVALUATE if is_at_hand(sequence, tasks_seen) else Remedy.NONE
    for key in (*sequence.score_keys[tasks_seen], *sequence.probe_keys_of(tasks_seen)):
        file = score_file(store.root, key)
        if (file.exists() or key in recorded) and store.load_score(key) is None:
            what = "it is not what was written" if file.exists() else "it is missing"
            yield Finding(file, what, Remedy.FROM_JOURNAL if key in recorded else again)
        try:
            load_predictions(store.root, key)
        except DamagedPredictions:
            yield Finding(predictions_file(store.root, key), "it is not what was written", again)


def is_at_hand(sequence: SequencePlan, tasks_seen: int) -> bool:
    """Whether a state can be scored: it is the initial model, or was stored and not pruned."""
    return tasks_trained(sequence, tasks_seen) == 0 or Store(Path(sequence.out)).has(sequence.keys[tasks_seen])


def recorded_scores(view: View) -> dict[str, dict[str, Any]]:
    """What a journal says of each score, by the score's key, as its file holds it."""
    records = {}
    place = {"time", "tasks_seen", "task_id", "task", "probe", "key"}
    for event in (*view.scores.values(), *view.probes.values()):
        records[event.key] = event.model_dump(mode="json", exclude=place)
    return records


def damaged_points(sequence: SequencePlan, view: View, task_id: int) -> Iterator[Finding]:
    """Whether the scores amid the training of a task are not what was written."""
    if not sequence.points_keys:
        return
    store = Store(Path(sequence.out))
    key = sequence.points_keys[task_id]
    file = score_file(store.root, key)
    if file.exists() and store.load_score(key) is None:
        is_known = any(position[0] == task_id for position in view.points)
        yield Finding(file, "it is not what was written", Remedy.FROM_JOURNAL if is_known else Remedy.NONE)
