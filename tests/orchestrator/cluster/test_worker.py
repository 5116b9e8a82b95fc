"""When a group takes up a sequence again, and what it makes of the notes of those who failed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import logs
from orchestrator.cluster.worker import is_due, leave_group_unless_alone
from orchestrator.errors import SequenceFailed, WorkerFailed
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store import events
from orchestrator.store.failure_notes import note_failure
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.store.view import read_view
from orchestrator.training.parallel import Parallel

STARTED = 1000


@pytest.fixture
def sequence(sequence_of: Callable[..., SequencePlan]) -> SequencePlan:
    return sequence_of()


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    return {
        "started": STARTED,
        "max_failures": 1,
        "until": None,
        "evaluate": True,
        "run_logs": str(tmp_path / "out" / "logs" / "ray-small-1000"),
    }


def take_up(sequence: SequencePlan, time: int) -> None:
    """Record the start of an attempt."""
    started = events.SequenceStarted(
        time=time, id=sequence.id, tasks=sequence.tasks, sequence={}, data=[], workers=2, device="cpu", versions={},
        git_commit=None, machine="here",
    )  # fmt: skip
    Journal(journal_folder(sequence.out, sequence.id)).append(started)


def note(sequence: SequencePlan, worker: int, time: int, reason: str, transient: bool) -> None:
    """Note a failure as a worker does."""
    failed = events.SequenceFailed(time=time, reason=reason, worker=worker, log=f"log of {worker}", transient=transient)
    note_failure(logs.sequence_logs(sequence.out, sequence.id), f"worker-{worker}", failed)


def test_what_was_never_taken_up_in_this_run_is_due(sequence: SequencePlan, settings: dict[str, Any]) -> None:
    assert is_due(sequence, settings)
    take_up(sequence, STARTED - 10)
    note(sequence, 1, STARTED - 5, "of an earlier run", transient=False)
    assert is_due(sequence, settings)
    assert read_view(sequence.out, sequence.id).status == "running"


def test_a_fault_that_another_worker_found_ends_the_sequence(sequence: SequencePlan, settings: dict[str, Any]) -> None:
    take_up(sequence, STARTED + 1)
    note(sequence, 1, STARTED + 2, "KeyError: 'x'", transient=False)
    note(sequence, 0, STARTED + 3, "RuntimeError: connection closed by peer", transient=True)
    assert not is_due(sequence, settings)
    failed = read_view(sequence.out, sequence.id).failed
    assert failed is not None
    assert (failed.reason, failed.worker, failed.log) == ("KeyError: 'x'", 1, "log of 1")
    assert failed.time >= STARTED


def test_workers_that_die_are_started_again_so_often_and_the_last_cause_is_named(
    sequence: SequencePlan, settings: dict[str, Any]
) -> None:
    take_up(sequence, STARTED + 1)
    note(sequence, 0, STARTED + 2, "OSError: first", transient=True)
    assert is_due(sequence, settings)
    take_up(sequence, STARTED + 3)
    killed = events.SequenceFailed(time=STARTED + 4, reason="worker 0 was killed", worker=0, log="ray", transient=True)
    note_failure(Path(settings["run_logs"]), "small-0-worker-0", killed)
    assert not is_due(sequence, settings)
    failed = read_view(sequence.out, sequence.id).failed
    assert failed is not None
    assert failed.reason == "its workers died 2 times (scaling.max_failures is 1); the last time: worker 0 was killed"
    assert failed.log == "ray"
    assert not failed.transient


def test_a_worker_that_was_killed_is_the_cause_and_not_the_connection_that_another_lost(
    sequence: SequencePlan, settings: dict[str, Any]
) -> None:
    settings["max_failures"] = 0
    take_up(sequence, STARTED + 1)
    lost = events.SequenceFailed(
        time=STARTED + 2, reason="RuntimeError: connection reset", method="ft", task="reviews", step=3, worker=0,
        log="log of 0", transient=True,
    )  # fmt: skip
    note_failure(logs.sequence_logs(sequence.out, sequence.id), "worker-0", lost)
    for worker in (0, 1):
        killed = events.SequenceFailed(
            time=STARTED + 4, reason=f"worker {worker} was killed", worker=worker, log="ray", transient=True
        )
        note_failure(Path(settings["run_logs"]), f"small-0-worker-{worker}", killed)
    assert not is_due(sequence, settings)
    failed = read_view(sequence.out, sequence.id).failed
    assert failed is not None
    assert failed.reason.endswith("died once (scaling.max_failures is 0); the last time: worker 1 was killed")
    assert (failed.worker, failed.log) == (1, "ray")
    assert (failed.method, failed.task, failed.step) == ("ft", "reviews", 3)


def test_a_death_that_nobody_survived_has_the_task_that_the_journal_tells(
    sequence: SequencePlan, settings: dict[str, Any]
) -> None:
    settings["max_failures"] = 0
    take_up(sequence, STARTED + 1)
    begun = events.TaskStarted(time=STARTED + 2, task_id=0, task="reviews", steps=3, reused=False)
    Journal(journal_folder(sequence.out, sequence.id)).append(begun)
    killed = events.SequenceFailed(time=STARTED + 4, reason="worker 0 was killed", worker=0, log="ray", transient=True)
    note_failure(Path(settings["run_logs"]), "small-0-worker-0", killed)
    assert not is_due(sequence, settings)
    failed = read_view(sequence.out, sequence.id).failed
    assert failed is not None
    assert (failed.method, failed.task, failed.step) == ("ft", "reviews", None)


def test_deaths_that_nobody_noted(sequence: SequencePlan, settings: dict[str, Any]) -> None:
    take_up(sequence, STARTED + 1)
    take_up(sequence, STARTED + 2)
    assert not is_due(sequence, settings)
    assert read_view(sequence.out, sequence.id).failure.startswith("its workers died 2 times")


def test_who_has_to_leave_the_group() -> None:
    leave_group_unless_alone(SequenceFailed("in the journal"), Parallel())
    with pytest.raises(SequenceFailed, match="in the journal"):
        leave_group_unless_alone(SequenceFailed("in the journal"), Parallel(rank=1, count=2))
    with pytest.raises(WorkerFailed, match="OSError: full"):
        leave_group_unless_alone(OSError("full"), Parallel())


def test_of_a_worker_that_was_killed_the_task_is_told_that_it_trained(
    sequence: SequencePlan, settings: dict[str, Any]
) -> None:
    """The state of the task before it may still have been written, and so have no checkpoint yet."""
    settings["max_failures"] = 0
    take_up(sequence, STARTED + 1)
    journal = Journal(journal_folder(sequence.out, sequence.id))
    for task_id in (0, 1):
        name = sequence.tasks[task_id]
        journal.append(events.TaskStarted(time=STARTED + 2, task_id=task_id, task=name, steps=3, reused=False))
    assert not is_due(sequence, settings)
    failed = read_view(sequence.out, sequence.id).failed
    assert failed is not None
    assert failed.task == sequence.tasks[1]
