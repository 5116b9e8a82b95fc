"""`orchestrator verify --repair`: what is damaged goes out of the way, and what is known elsewhere is written again."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.planning.recovery import add_lost, save_points
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.report.pruning import lock_experiment
from orchestrator.retention import is_whole_plan, trial_plans
from orchestrator.store.access_log import TestAccessLog
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import PointScored
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.store.predictions import predictions_file
from orchestrator.store.scores import score_file
from orchestrator.store.view import View, read_view
from orchestrator.verification.findings import Finding, put_aside
from orchestrator.verification.lines import drop_damaged_lines, is_whole_event, is_whole_line
from orchestrator.verification.plans import Planned
from orchestrator.verification.sequences import is_at_hand, recorded_scores


def mend(planned: Planned, findings: Collection[Finding]) -> None:
    """Put aside what was found damaged, and write again what journals and store know. Raises UserError where a command runs.

    What has to be computed again, the next command computes.
    """
    damaged = {finding.file for finding in findings}
    store = Store(planned.out)
    with contextlib.ExitStack() as locks:
        lock_experiment(planned.folder, store, locks)
        for sequence in planned.sequences:
            # its workers may have outlived their command
            if not locks.enter_context(store.lock(f"sequence-{sequence.id}", timeout=0)):
                raise UserError(f"sequence {sequence.id!r} is being trained by another process")
        for sequence in planned.sequences:
            view = read_view(sequence.out, sequence.id)
            _mend_scores(sequence, view, store, damaged)
            _mend_points(sequence, view, store, damaged)
            for key in sequence.keys[1:]:
                # states may be shared, and the first sequence has put it aside
                if store.path(key) in damaged and store.path(key).exists():
                    locks.enter_context(store.lock(key, timeout=-1))
                    store.set_aside(key)
            _mend_journal(sequence, view, damaged)
        _mend_lines(planned, damaged)


def _mend_scores(sequence: SequencePlan, view: View, store: Store, damaged: Collection[Path]) -> None:
    """Remove scores that are damaged, or whose answers are; those that the journal knows, and needs no answers for, come back."""
    recorded = recorded_scores(view)
    for tasks_seen in range(len(sequence.keys)):
        for key in (*sequence.score_keys[tasks_seen], *sequence.probe_keys_of(tasks_seen)):
            score = score_file(store.root, key)
            answers = predictions_file(store.root, key)
            is_lost = score in damaged
            if answers in damaged and answers.exists():
                put_aside(answers)
                # both are computed together; of a state that is gone the score alone can stay
                is_lost = is_lost or is_at_hand(sequence, tasks_seen)
                recorded.pop(key, None)
            if is_lost and score.exists():
                put_aside(score)
            if is_lost and key in recorded:
                store.save_score(key, recorded[key])


def _mend_points(sequence: SequencePlan, view: View, store: Store, damaged: Collection[Path]) -> None:
    for task_id, key in enumerate(sequence.points_keys):
        file = score_file(store.root, key)
        if file not in damaged or not file.exists():
            continue
        put_aside(file)
        points: list[PointScored] = []
        for (of_task, _, _), point in view.points.items():
            if of_task == task_id:
                points.append(point)
        if points:
            save_points(sequence, task_id, points, store)


def _mend_journal(sequence: SequencePlan, view: View, damaged: Collection[Path]) -> None:
    """Leave the sound lines of a journal, and append what the store knows of the others."""
    folder = journal_folder(sequence.out, sequence.id)
    # asked while the damaged lines are there, which say that something was lost
    lost = add_lost(sequence, view)
    for file in sorted(folder.glob("*.jsonl")):
        if file in damaged:
            drop_damaged_lines(file, is_whole_event)
    if lost:
        Journal(folder).append_all(lost)


def _mend_lines(planned: Planned, damaged: Collection[Path]) -> None:
    """Leave the sound lines of a search's journal, of its trials' plans and of the test-access log; put other files aside."""
    trials = trial_plans(str(planned.out), planned.folder.name)
    access = TestAccessLog(planned.out).folder
    for file in damaged:
        if file == trials:
            drop_damaged_lines(file, is_whole_plan)
        elif file.parent == access:
            drop_damaged_lines(file, is_whole_line)
        elif file.parent == planned.search and file.suffix == ".jsonl":
            drop_damaged_lines(file, is_whole_event)
        elif file.parent in (planned.search, planned.folder) and file.exists():
            put_aside(file)
