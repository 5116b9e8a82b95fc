"""What each worker of a sequence, and the process that looks after them, says of a failure.

Only the first worker writes into a sequence's journal, but any worker may fail, or end without a word. So each failure is noted
beside the log files, one journal a writer; the group's next first worker reads the notes and decides what they mean.
"""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.store.events import SequenceFailed
from orchestrator.store.journal import Journal, Tail

# Parts of what torch says, in a plain RuntimeError, where another worker is no longer there
_LOST_CONNECTION = re.compile(r"gloo|nccl|by peer|connection (closed|reset|refused)|broken pipe", flags=re.IGNORECASE)


def note_failure(folder: Path, writer: str, failure: SequenceFailed) -> None:
    """Note a failure in a folder of log files."""
    Journal(folder, writer).append(failure)


def noted_failures(folder: Path) -> dict[str, list[SequenceFailed]]:
    """The failures that were noted in a folder, by their attempt; of each worker in its order, and the workers in theirs."""
    found: dict[str, list[SequenceFailed]] = {}
    for event in Tail(folder).new_events():
        if isinstance(event, SequenceFailed):
            found.setdefault(event.attempt, []).append(event)
    for failures in found.values():
        # not by time: each machine has a clock of its own
        failures.sort(key=lambda failure: -1 if failure.worker is None else failure.worker)
    return found


class FailureNotes:
    """All notes on the attempts at a sequence: its workers left theirs in `sequence_logs`, who look after them in `run_logs`."""

    def __init__(self, sequence_logs: Path, run_logs: Path) -> None:
        self.by_workers = noted_failures(sequence_logs)
        self.of_deaths = noted_failures(run_logs)

    def cause(self, attempt: str) -> SequenceFailed | None:
        """What ended an attempt; None where nobody noted a failure, as of one that was asked to leave.

        A fault of the sequence's own comes first, then the death of a worker that noted nothing, then what a worker noted that
        is more than a lost connection to another one.
        """
        noted_by_workers = self.by_workers.get(attempt, [])
        for failure in noted_by_workers:
            if not failure.transient:
                return failure
        # a worker that could still write knows more of its own end than who saw it end
        writers = {failure.worker for failure in noted_by_workers}
        for death in self.of_deaths.get(attempt, []):
            if death.worker not in writers:
                return _in_the_step_of(death, noted_by_workers)
        for failure in noted_by_workers:
            if not _LOST_CONNECTION.search(failure.reason):
                return failure
        if noted_by_workers:
            return noted_by_workers[0]
        return None


def _in_the_step_of(death: SequenceFailed, survivors: list[SequenceFailed]) -> SequenceFailed:
    """A death with the task and step in which another worker lost the connection, since all take each step together."""
    if not survivors:
        return death
    first = survivors[0]
    return death.model_copy(update={"method": first.method, "task": first.task, "step": first.step})
