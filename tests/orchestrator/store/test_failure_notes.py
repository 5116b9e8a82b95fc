"""Which of several notes on one failed attempt is its cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.store.events import SequenceFailed
from orchestrator.store.failure_notes import FailureNotes, note_failure


def failure(worker: int, time: int, reason: str, transient: bool = True) -> SequenceFailed:
    return SequenceFailed(
        time=time, reason=reason, worker=worker, task="reviews", step=time, transient=transient, attempt="a"
    )


OWN_FAULT = failure(1, 12, "KeyError", transient=False)
LOST = failure(0, 11, "RuntimeError: Connection closed by peer [127.0.0.1]:3232")
FULL = failure(1, 12, "OSError: no space left")
KILLED = SequenceFailed(time=13, reason="killed", worker=1, transient=True, attempt="a")
DEATH_OF_WHO_WROTE = SequenceFailed(time=10, reason="killed", worker=0, transient=True, attempt="a")


def notes(folder: Path, by_workers: list[SequenceFailed], deaths: list[SequenceFailed]) -> FailureNotes:
    for noted in by_workers:
        note_failure(folder / "sequence", f"worker-{noted.worker}", noted)
    for death in deaths:
        note_failure(folder / "run", f"group-0-worker-{death.worker}", death)
    return FailureNotes(folder / "sequence", folder / "run")


@pytest.mark.parametrize("hours", [-3, 0, 3])
@pytest.mark.parametrize(
    ("by_workers", "deaths", "reason"),
    [
        ([], [], None),
        ([LOST], [], LOST.reason),
        # though the lost connection was noted earlier
        ([LOST, OWN_FAULT], [KILLED], "KeyError"),
        ([LOST, FULL], [], "OSError: no space left"),
        ([LOST], [KILLED], "killed"),
        ([], [KILLED], "killed"),
        ([LOST], [DEATH_OF_WHO_WROTE], LOST.reason),
    ],
)
def test_the_cause(
    by_workers: list[SequenceFailed], deaths: list[SequenceFailed], reason: str | None, hours: int, tmp_path: Path
) -> None:
    """Whatever the clock of the machine said on which an earlier attempt failed."""
    earlier = OWN_FAULT.model_copy(update={"attempt": "earlier", "time": OWN_FAULT.time + hours * 3_600_000})
    found = notes(tmp_path, [earlier, *by_workers], deaths)
    cause = found.cause("a")
    assert (None if cause is None else cause.reason) == reason
    assert found.cause("earlier") == earlier
    assert found.cause("later") is None


def test_a_death_has_the_step_in_which_another_lost_the_connection(tmp_path: Path) -> None:
    cause = notes(tmp_path, [LOST], [KILLED]).cause("a")
    assert cause is not None
    assert (cause.worker, cause.task, cause.step) == (1, "reviews", 11)
