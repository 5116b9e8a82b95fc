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

    The earliest failure is the cause. What the other workers said after it follows from it: a lost connection mostly.
    """
    said_by_workers = noted_failures(sequence_logs, since)
    # a worker that could still speak knows more than who saw it end
    if said_by_workers:
        return said_by_workers[0]
    deaths = noted_failures(run_logs, since)
    if deaths:
        return deaths[0]
    return None
