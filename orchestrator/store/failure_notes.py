"""What each worker of a sequence, and the process that looks after them, says of a failure.

Only the first worker writes into a sequence's journal, but any worker may fail, or end without a word. So each failure is noted
beside the log files, one journal a writer; the group's next first worker reads the notes and decides what they mean.
"""

from __future__ import annotations

from pathlib import Path

from orchestrator.store.events import SequenceFailed
from orchestrator.store.journal import Journal, Tail


def note_failure(folder: Path, writer: str, failure: SequenceFailed) -> None:
    """Note a failure in a folder of log files."""
    Journal(folder, writer).append(failure)


def noted_failures(folder: Path, since: int) -> list[SequenceFailed]:
    """The failures that were noted in a folder from a time (in milliseconds) on, oldest first."""
    found = []
    for event in Tail(folder).new_events():
        # notes of earlier attempts stay in the folder, and are of no concern for the present one
        if isinstance(event, SequenceFailed) and event.time >= since:
            found.append(event)
    # the files of several workers come in no order
    return sorted(found, key=lambda failure: failure.time)


def cause_of_failure(sequence_logs: Path, run_logs: Path, since: int) -> SequenceFailed | None:
    """What ended the attempt at a sequence that began at `since`; None where nobody knows.

    Its workers left their notes in `sequence_logs`, those who look after them in `run_logs`.

    A fault of the sequence's own comes first, then the death of a worker that noted nothing, then the earliest of the
    rest. What the other workers note follows from it: a lost connection mostly.
    """
    noted_by_workers = noted_failures(sequence_logs, since)
    for failure in noted_by_workers:
        if not failure.transient:
            return failure
    # a worker that could still write knows more of its own end than who saw it end
    writers = {failure.worker for failure in noted_by_workers}
    for death in noted_failures(run_logs, since):
        if death.worker not in writers:
            return _in_the_step_of(death, noted_by_workers)
    if noted_by_workers:
        return noted_by_workers[0]
    return None


def _in_the_step_of(death: SequenceFailed, survivors: list[SequenceFailed]) -> SequenceFailed:
    """A death with the task and step in which another worker lost the connection, since all take each step together."""
    if not survivors:
        return death
    first = survivors[0]
    return death.model_copy(update={"method": first.method, "task": first.task, "step": first.step})
