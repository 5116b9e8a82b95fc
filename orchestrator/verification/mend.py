"""`orchestrator verify --repair`: what is damaged goes out of the way, and what is known elsewhere is written again."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.planning.recovery import add_lost, save_points
from orchestrator.report.pruning import lock_experiment
from orchestrator.retention import is_whole_plan, trial_plans
from orchestrator.store.access_log import TestAccessLog
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import PointScored
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.store.predictions import predictions_file
from orchestrator.store.scores import score_file
from orchestrator.verification.findings import Finding, put_aside
from orchestrator.verification.lines import drop_damaged_lines, is_whole_event, is_whole_line
from orchestrator.verification.plans import Planned
from orchestrator.verification.sequences import SequenceFiles


def mend(planned: Planned, findings: Collection[Finding]) -> None:
    """Put aside what was found damaged, and write again what journals and store know. Raises UserError where a command runs.

    What has to be computed again, the next command computes.
    """
    damaged = set()
    for finding in findings:
        damaged.add(finding.file)
    store = Store(planned.out)
    with contextlib.ExitStack() as locks:
        lock_experiment(planned.folder, store, locks)
        for files in planned.sequences:
            # its workers may have outlived their command
            if not locks.enter_context(store.lock(f"sequence-{files.sequence.id}", timeout=0)):
                raise UserError(f"sequence {files.sequence.id!r} is being trained by another process")
        for files in planned.sequences:
            _mend_scores(files, damaged)
            _mend_points(files, damaged)
        for files in planned.sequences:
            for key in files.sequence.keys[1:]:
                # states may be shared, and the first sequence has put it aside
                if store.path(key) in damaged and store.path(key).exists():
                    locks.enter_context(store.lock(key, timeout=-1))
                    store.set_aside(key)
            _mend_journal(files, damaged)
        _mend_lines(planned, damaged)


def _mend_scores(files: SequenceFiles, damaged: Collection[Path]) -> None:
    """Remove scores that are damaged, or whose answers are; those that the journal knows, and needs no answers for, come back."""
    sequence = files.sequence
    store = files.store
    for tasks_seen in range(len(sequence.keys)):
        for key in (*sequence.score_keys[tasks_seen], *sequence.probe_keys_of(tasks_seen)):
            score = score_file(store.root, key)
            answers = predictions_file(store.root, key)
            # both are computed together; of a state that is gone the score alone can stay
            is_made_again = answers in damaged and files.is_at_hand(tasks_seen)
            if answers in damaged and answers.exists():
                put_aside(answers)
            if (score in damaged or is_made_again) and score.exists():
                put_aside(score)
            if score in damaged and not is_made_again and key in files.recorded_scores:
                store.save_score(key, files.recorded_scores[key])


def _mend_points(files: SequenceFiles, damaged: Collection[Path]) -> None:
    for task_id, key in enumerate(files.sequence.points_keys):
        file = score_file(files.store.root, key)
        if file not in damaged or not file.exists():
            continue
        put_aside(file)
        points: list[PointScored] = []
        for (of_task, _, _), point in files.view.points.items():
            if of_task == task_id:
                points.append(point)
        if points:
            save_points(files.sequence, task_id, points, files.store)


def _mend_journal(files: SequenceFiles, damaged: Collection[Path]) -> None:
    """Leave the sound lines of a journal, and append what the store knows of the others."""
    folder = journal_folder(files.sequence.out, files.sequence.id)
    # asked while the damaged lines are there, which say that something was lost
    has_start = files.view.start is not None
    lost = add_lost(files.sequence, files.view)
    # of what goes on the next command writes the first line, and knows the data, which a plan does not
    if files.is_over and not has_start and files.view.start is not None:
        lost.insert(0, files.view.start)
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
