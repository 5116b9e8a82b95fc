"""What a sequence's workers write: its journal, and its states beside training."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from typing import Any

from orchestrator import errors, logs
from orchestrator.planning.recovery import checkpoint_event, point_events, step_events
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store import events
from orchestrator.store.checkpoints import State, Store
from orchestrator.store.environment import describe
from orchestrator.store.failure_notes import note_failure
from orchestrator.store.journal import ThreadedJournal, journal_folder
from orchestrator.store.records.event import Event, Report
from orchestrator.store.states.in_task import InTaskStates
from orchestrator.store.states.state_files import PackedState, pack_state
from orchestrator.store.states.writer import StateWriter
from orchestrator.store.versions import library_versions
from orchestrator.store.view import read_view
from orchestrator.training.parallel import Parallel
from orchestrator.training.task import Position
from streams import Stream

logger = logging.getLogger(__name__)


class SequenceRecord:
    """Writes the facts of one sequence, journal first, then to `report`; on the worker that writes, and each fact once."""

    def __init__(self, sequence: SequencePlan, parallel: Parallel, report: Report | None) -> None:
        self.sequence = sequence
        self.parallel = parallel
        self.report = report
        self.attempt = events.NO_ATTEMPT
        self.journal = ThreadedJournal(journal_folder(sequence.out, sequence.id))
        # What the journal has already, of a run that was stopped, is not recorded again
        self.known = read_view(sequence.out, sequence.id)

    def add(self, event: Event) -> None:
        """Record a fact, unless it is known."""
        self.add_all([event])

    def add_all(self, events: Iterable[Event]) -> None:
        """Record those of some facts that are not known, all at once."""
        if not self.parallel.writes:
            return
        news = [event for event in events if self.known.add(event)]
        if news:
            self.journal.append_all(news)
        if self.report is not None:
            for event in news:
                self.report(event)

    def sequence_started(self, stream: Stream) -> None:
        """Record the whole configuration, the data and the software."""
        sequence = self.sequence
        started = events.SequenceStarted(
            id=sequence.id,
            tasks=sequence.tasks,
            sequence=sequence.model_dump(mode="json", exclude={"score_keys", "points_keys", "probe_keys"}),
            data=stream.manifest(),
            workers=self.parallel.count,
            device=str(self.parallel.device),
            run=self.attempt.run,
            attempt=self.attempt.id,
            **describe(),
        )
        self.add(started)

    def task_started(self, task_id: int, steps: int, reused: bool = False) -> None:
        """Record that the training of a task begins, or that its state was found."""
        name = self.sequence.tasks[task_id]
        self.add(events.TaskStarted(task_id=task_id, task=name, steps=steps, reused=reused))

    def checkpoint(self, task_id: int, store: Store, found: bool) -> None:
        """Record where the state after a task is; of a state that was found, also how it was trained."""
        if not self.parallel.writes:
            return
        saved = checkpoint_event(self.sequence, task_id, store)
        if found:
            steps = step_events(self.sequence, task_id, store)
            self.task_started(task_id, len(steps), saved.reused)
            for event in (*steps, *point_events(self.sequence, task_id, store)):
                self.add(event)
        self.add(saved)

    def note_failure(self, error: Exception, where: Position, transient: bool) -> events.SequenceFailed:
        """Write a failure into this worker's log, and note it beside it for the worker that writes the journal."""
        sequence = self.sequence
        worker = self.parallel.rank
        log = logs.worker_log(sequence.out, sequence.id, worker)
        failed = events.SequenceFailed(
            reason=reason(error),
            traceback=logs.traceback_of(error),
            method=sequence.method.label,
            task=where.task,
            step=where.step,
            worker=worker,
            log=str(log),
            transient=transient,
            attempt=self.attempt.id,
        )
        what = f"{sequence.id}, method {failed.method}, task {failed.task}, step {failed.step}, worker {worker}"
        logs.write_failure(log, what, error)
        # where it is the storage that fails, the failure itself is what must be told
        with suppress(OSError):
            note_failure(log.parent, f"worker-{worker}", failed)
        return failed


class StateSaver:
    """Writes a sequence's states beside training, one at a time, and records each checkpoint when it is on the disk.

    `writing` is the task whose state is being written. It is the same on every worker, so that all of them wait together.
    """

    def __init__(
        self, sequence: SequencePlan, parallel: Parallel, store: Store, record: SequenceRecord, position: Position
    ) -> None:
        self.sequence = sequence
        self.parallel = parallel
        self.store = store
        self.record = record
        self.position = position
        self.writing: int | None = None
        self._writer = StateWriter()

    def start(self, task_id: int, state: State, held: ExitStack) -> None:
        """Begin to write the state after a task. What is `held`, the lock of its key, is so until it is written."""
        sequence = self.sequence
        self.finish()
        if self.parallel.writes:
            made_by = {"sequence": sequence.id, "task": sequence.tasks[task_id], "versions": dict(library_versions())}
            made_by |= sequence.model_dump(mode="json")
            # a copy is written: the next task changes the weights from its first step on
            # the first state has none before it on the disk
            base = sequence.keys[task_id] if sequence.checkpoints.delta and task_id > 0 else None
            write = functools.partial(self._write, sequence.keys[task_id + 1], pack_state(state), made_by, base)
            self._writer.start(write, held.pop_all())
        self.writing = task_id

    def _write(self, key: str, packed: PackedState, made_by: Mapping[str, Any], base: str | None) -> None:
        self.store.write(key, packed, made_by, base)
        InTaskStates(self.store.root, key).remove()

    def look(self) -> None:
        """Record the state that was being written, if it is there by now. Raises what its writing raised."""
        if self._writer.has_ended:
            self._record()

    def finish(self) -> None:
        """Wait, on every worker, until the state that is being written is in the store."""
        if self.writing is None:
            return
        self._record()
        # nobody reads the checkpoint before it is there
        self.parallel.barrier()
        self.writing = None

    def finish_alone(self) -> None:
        """The same after an error, where other workers may not come: a task that was done before it stays done."""
        try:
            self._record()
        # what is told is the error that came first
        except Exception:
            logger.exception("the state before could not be written either")

    def close(self) -> None:
        """End the thread, which first writes what it was given."""
        self._writer.close()

    def _record(self) -> None:
        if self.writing is None or self._writer.is_idle:
            return
        try:
            self._writer.wait()
        except Exception:
            # what failed is not the task that is trained meanwhile
            self.position.task = self.sequence.tasks[self.writing]
            self.position.step = None
            raise
        self.record.checkpoint(self.writing, self.store, found=False)


def reason(error: Exception) -> str:
    """One line on why a sequence failed."""
    lines = str(error).strip().splitlines()
    first_line = lines[0] if lines else "no message"
    # Our own errors say all in their message; of another's the kind may be all that there is
    if isinstance(error, errors.SequenceFailed):
        return first_line
    return f"{type(error).__name__}: {first_line}"
