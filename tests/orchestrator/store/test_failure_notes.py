"""Which of several notes on one failed attempt is its cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.store.events import SequenceFailed
from orchestrator.store.failure_notes import cause_of_failure, note_failure


def failure(worker: int, time: int, reason: str, transient: bool = True) -> SequenceFailed:
    return SequenceFailed(time=time, reason=reason, worker=worker, task="reviews", step=time, transient=transient)


OWN_FAULT = failure(1, 12, "KeyError", transient=False)
LOST = failure(0, 11, "connection reset")
KILLED = SequenceFailed(time=13, reason="killed", worker=1, transient=True)
DEATH_OF_WHO_WROTE = SequenceFailed(time=10, reason="killed", worker=0, transient=True)


@pytest.mark.parametrize(
    ("by_workers", "deaths", "reason"),
    [
        ([], [], None),
        ([LOST], [], "connection reset"),
        # though the lost connection was noted earlier
        ([LOST, OWN_FAULT], [KILLED], "KeyError"),
        ([LOST], [KILLED], "killed"),
        ([], [KILLED], "killed"),
        ([LOST], [DEATH_OF_WHO_WROTE], "connection reset"),
    ],
)
def test_the_cause(
    by_workers: list[SequenceFailed], deaths: list[SequenceFailed], reason: str | None, tmp_path: Path
) -> None:
    for noted in by_workers:
        note_failure(tmp_path / "sequence", f"worker-{noted.worker}", noted)
    for death in deaths:
        note_failure(tmp_path / "run", f"group-0-worker-{death.worker}", death)
    cause = cause_of_failure(tmp_path / "sequence", tmp_path / "run", since=5)
    assert (None if cause is None else cause.reason) == reason
    assert cause_of_failure(tmp_path / "sequence", tmp_path / "run", since=20) is None, "notes of an earlier attempt"


def test_a_death_has_the_step_in_which_another_lost_the_connection(tmp_path: Path) -> None:
    note_failure(tmp_path / "sequence", "worker-0", LOST)
    note_failure(tmp_path / "run", "group-0-worker-1", KILLED)
    cause = cause_of_failure(tmp_path / "sequence", tmp_path / "run", since=5)
    assert cause is not None
    assert (cause.worker, cause.task, cause.step) == (1, "reviews", 11)
