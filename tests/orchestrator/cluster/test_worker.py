"""When a group takes up a sequence again, and what it makes of the notes of those who failed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import logs
from orchestrator.cluster.worker import is_due, leave_group_unless_alone
from orchestrator.errors import NonFiniteLoss, SequenceFailed, WorkerFailed
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store import events
from orchestrator.store.events import SequenceStarted
from orchestrator.store.failure_notes import note_failure
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.store.records.event import Event, now_ms
from orchestrator.store.view import read_view
from orchestrator.training.parallel import Parallel
from tests.orchestrator.store.examples import checkpoint

# a clock that is so far ahead or behind
HOURS = 3 * 3_600_000


@pytest.fixture
def sequence(sequence_of: Callable[..., SequencePlan]) -> SequencePlan:
    return sequence_of()


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    return {
        "run": "present",
        "max_failures": 1,
        "until": None,
        "evaluate": True,
        "run_logs": str(tmp_path / "out" / "logs" / "ray-small-present"),
    }


def record(sequence: SequencePlan, *facts: Event) -> None:
    Journal(journal_folder(sequence.out, sequence.id)).append_all(facts)


def take_up(sequence: SequencePlan, attempt: str, run: str = "present", clock: int = 0) -> None:
    """Record the start of an attempt, on a machine whose clock is wrong by so much."""
    started = SequenceStarted(
        time=now_ms() + clock, id=sequence.id, tasks=sequence.tasks, sequence={}, data=[], workers=2, device="cpu",
        versions={}, git_commit=None, machine="here", run=run, attempt=attempt,
    )  # fmt: skip
    record(sequence, started)


def note(
    sequence: SequencePlan, attempt: str, worker: int, reason: str, transient: bool = True, clock: int = 0
) -> None:
    """Note a failure as a worker does."""
    failed = events.SequenceFailed(
        time=now_ms() + clock, reason=reason, worker=worker, log=f"log of {worker}", transient=transient,
        attempt=attempt,
    )  # fmt: skip
    note_failure(logs.sequence_logs(sequence.out, sequence.id), f"worker-{worker}", failed)


def note_death(settings: dict[str, Any], attempt: str, worker: int = 0) -> None:
    """Note a death as the process does that looks after the workers."""
    killed = events.SequenceFailed(
        reason=f"worker {worker} was killed", worker=worker, log="ray", transient=True, attempt=attempt
    )
    note_failure(Path(settings["run_logs"]), f"small-0-worker-{worker}", killed)


def failure_of(sequence: SequencePlan) -> events.SequenceFailed:
    failed = read_view(sequence.out, sequence.id).failed
    assert failed is not None
    return failed


@pytest.mark.parametrize("clock", [-HOURS, 0, HOURS])
def test_what_happened_in_another_run_counts_for_nothing_whatever_its_clock_said(
    clock: int, sequence: SequencePlan, settings: dict[str, Any]
) -> None:
    assert is_due(sequence, settings)
    for attempt in "abc":
        take_up(sequence, attempt, run="earlier", clock=clock)
        note(sequence, attempt, 1, "of an earlier run", clock=clock)
    assert is_due(sequence, settings)
    take_up(sequence, "d", run="earlier", clock=clock)
    note(sequence, "d", 1, "of an earlier run", transient=False, clock=clock)
    assert is_due(sequence, settings)
    record(sequence, events.SequenceFailed(time=now_ms() + clock, reason="of an earlier run"))
    assert is_due(sequence, settings), "this run tries it anew"
    # one death in this run, of the two that end it
    take_up(sequence, "e")
    note_death(settings, "e")
    assert is_due(sequence, settings)
    assert read_view(sequence.out, sequence.id).status == "running"


@pytest.mark.parametrize("clock", [-HOURS, HOURS])
@pytest.mark.parametrize("last_word", [events.SequenceFailed(reason="why"), events.SequenceFinished()])
def test_what_ended_in_this_run_is_over_whatever_its_clock_said(
    clock: int, last_word: Event, sequence: SequencePlan, settings: dict[str, Any]
) -> None:
    take_up(sequence, "a", clock=clock)
    record(sequence, last_word.model_copy(update={"time": now_ms() + clock}))
    assert not is_due(sequence, settings)


def test_a_fault_that_another_worker_found_ends_the_sequence(sequence: SequencePlan, settings: dict[str, Any]) -> None:
    take_up(sequence, "a")
    note(sequence, "a", 1, "KeyError: 'x'", transient=False)
    note(sequence, "a", 0, "RuntimeError: connection closed by peer")
    assert not is_due(sequence, settings)
    failed = failure_of(sequence)
    assert (failed.reason, failed.worker, failed.log) == ("KeyError: 'x'", 1, "log of 1")


def test_workers_that_die_are_started_again_so_often_and_the_last_cause_is_named(
    sequence: SequencePlan, settings: dict[str, Any]
) -> None:
    take_up(sequence, "a")
    note(sequence, "a", 0, "OSError: first")
    assert is_due(sequence, settings)
    take_up(sequence, "b")
    note_death(settings, "b")
    assert not is_due(sequence, settings)
    failed = failure_of(sequence)
    assert failed.reason == "its workers died 2 times (scaling.max_failures is 1); the last time: worker 0 was killed"
    assert failed.log == "ray"
    assert not failed.transient


def test_deaths_with_a_state_stored_between_them_are_never_too_many(
    sequence: SequencePlan, settings: dict[str, Any]
) -> None:
    for task_id, attempt in enumerate("abcd"):
        take_up(sequence, attempt)
        record(sequence, checkpoint(task_id))
        note_death(settings, attempt)
        assert is_due(sequence, settings)
    for attempt in "ef":
        assert is_due(sequence, settings)
        take_up(sequence, attempt)
        note_death(settings, attempt)
    assert not is_due(sequence, settings)
    assert "died 2 times" in failure_of(sequence).reason


def test_who_was_asked_to_leave_did_not_die(sequence: SequencePlan, settings: dict[str, Any]) -> None:
    for attempt in "abc":
        take_up(sequence, attempt)
    assert is_due(sequence, settings)
    note_death(settings, "c")
    assert is_due(sequence, settings), "the first death"


def test_a_worker_that_was_killed_is_the_cause_and_not_the_connection_that_another_lost(
    sequence: SequencePlan, settings: dict[str, Any]
) -> None:
    settings["max_failures"] = 0
    take_up(sequence, "a")
    lost = events.SequenceFailed(
        reason="RuntimeError: connection reset", method="ft", task="reviews", step=3, worker=0,
        log="log of 0", transient=True, attempt="a",
    )  # fmt: skip
    note_failure(logs.sequence_logs(sequence.out, sequence.id), "worker-0", lost)
    for worker in (0, 1):
        note_death(settings, "a", worker)
    assert not is_due(sequence, settings)
    failed = failure_of(sequence)
    assert failed.reason.endswith("died once (scaling.max_failures is 0); the last time: worker 1 was killed")
    assert (failed.worker, failed.log) == (1, "ray")
    assert (failed.method, failed.task, failed.step) == ("ft", "reviews", 3)


@pytest.mark.parametrize("tasks_begun", [1, 2])
def test_a_death_that_nobody_survived_has_the_task_that_the_journal_tells(
    tasks_begun: int, sequence: SequencePlan, settings: dict[str, Any]
) -> None:
    """The state of the task before it may still have been written, and so have no checkpoint yet."""
    settings["max_failures"] = 0
    take_up(sequence, "a")
    for task_id in range(tasks_begun):
        name = sequence.tasks[task_id]
        record(sequence, events.TaskStarted(task_id=task_id, task=name, steps=3, reused=False))
    note_death(settings, "a")
    assert not is_due(sequence, settings)
    failed = failure_of(sequence)
    assert (failed.method, failed.task, failed.step) == ("ft", sequence.tasks[tasks_begun - 1], None)


def test_who_has_to_leave_the_group() -> None:
    leave_group_unless_alone(SequenceFailed("in the journal"), Parallel())
    with pytest.raises(SequenceFailed, match="in the journal"):
        leave_group_unless_alone(SequenceFailed("in the journal"), Parallel(rank=1, count=2))
    # which all of them raise together
    leave_group_unless_alone(NonFiniteLoss("the loss is nan"), Parallel(rank=1, count=2))
    with pytest.raises(WorkerFailed, match="OSError: full"):
        leave_group_unless_alone(OSError("full"), Parallel())
