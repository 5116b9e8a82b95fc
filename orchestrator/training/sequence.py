"""One sequence from its first task to its last, in any Python process, alone or as one of several workers."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch

from orchestrator.errors import NonFiniteLoss, SequenceFailed
from orchestrator.evaluation.scores import compute_score, missing_scores, score_events
from orchestrator.planning.keys import check_unchanged
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store import events
from orchestrator.store.checkpoints import State, Store
from orchestrator.store.events import Event, Report
from orchestrator.store.versions import library_versions
from orchestrator.store.view import View, read_view
from orchestrator.training.cost import task_steps
from orchestrator.training.environment import SystemSampler
from orchestrator.training.learner import Learner
from orchestrator.training.learner_state import Purpose
from orchestrator.training.parallel import Parallel
from orchestrator.training.record import SequenceRecord, reason
from orchestrator.training.task import Position, TaskLog, train_task
from streams import Stream

logger = logging.getLogger(__name__)


def run_sequence(
    sequence: SequencePlan,
    report: Report | None = None,
    evaluate: bool = True,
    parallel: Parallel | None = None,
    until: int | None = None,
) -> View:
    """Train every task that the store does not have yet, and score every state unless `evaluate` is False.

    `until` ends it after that many tasks; a later call goes on from there.

    Must be called on every worker of the process group, if there is one. Each fact goes to the sequence's journal and then
    to `report`. Raises SequenceFailed after recording it; whatever was made before stays.
    """
    run = _SequenceRun(sequence, parallel or Parallel.current(), report)
    task_ids = range(len(sequence.tasks))[:until]
    try:
        run.start()
        if evaluate:
            run.score(0)
        for task_id in task_ids:
            run.ensure_stored(task_id + 1)
            run.record.checkpoint(task_id, run.store, found=task_id not in run.trained)
            if evaluate:
                run.score(task_id + 1)
    except Exception as error:
        is_own_fault = run.is_own_fault(error)
        # on every worker: the one that fails may not be the one that writes the journal
        failed = run.record.note_failure(error, run.position, transient=not is_own_fault)
        if not is_own_fault:
            raise
        run.record.add(failed)
        if isinstance(error, SequenceFailed):
            raise
        raise SequenceFailed(reason(error)) from error
    if len(task_ids) == len(sequence.tasks):
        run.record.add(events.SequenceFinished())
    return read_view(sequence.out, sequence.id)


class StateScorer:
    """Scores stored states, one after the other. Between them it keeps the data, and the model of the last one's sequence."""

    def __init__(self, parallel: Parallel | None = None) -> None:
        self.parallel = parallel or Parallel.current()
        self.learner: Learner | None = None

    def score(self, sequence: SequencePlan, tasks_seen: int) -> None:
        """Compute the missing scores of one state (0: the initial model). Records nothing in the journal."""
        store = Store(Path(sequence.out))
        missing = missing_scores(sequence, tasks_seen, store)
        if not missing:
            return
        # not kept before it is done: what an error leaves behind is not gone on with
        learner = self._learner_of(sequence)
        key = sequence.keys[tasks_seen]
        trained = tasks_trained(sequence, tasks_seen)
        if trained == 0 and not learner.state.is_after(0, "score"):
            learner.load_initial()
        elif trained > 0 and store.is_sound(key):
            learner.load(store.load(key), tasks_seen)
        elif trained > 0:
            raise ValueError(f"checkpoint {store.path(key)} is missing or changed")
        _compute_scores(learner, store, tasks_seen, missing, Position())
        self.learner = learner

    def _learner_of(self, sequence: SequencePlan) -> Learner:
        """The learner that is kept, where it is the sequence's; else a new one, with the data where they are the same."""
        kept = self.learner
        self.learner = None
        stream = None
        if kept is not None and (kept.sequence.stream, kept.sequence.split) == (sequence.stream, sequence.split):
            stream = kept.stream
            # they lie in memory, and are read for this state all the same
            sequence.note_test_reads(stream)
        if kept is not None and stream is not None and kept.sequence == sequence:
            return kept
        stream = stream or sequence.open_stream()
        check_unchanged(sequence, stream)
        logger.info("a new learner for %s", sequence.id)
        return Learner(sequence, stream, self.parallel)


def score_state(sequence: SequencePlan, tasks_seen: int, parallel: Parallel | None = None) -> None:
    """Compute the missing scores of one stored state, as a `StateScorer` does, and keep nothing."""
    StateScorer(parallel).score(sequence, tasks_seen)


def _compute_scores(
    learner: Learner, store: Store, tasks_seen: int, task_ids: Sequence[int], position: Position
) -> None:
    """Score the state that a learner holds on tasks."""
    model = learner.scored_model()
    for task_id in task_ids:
        position.task = learner.sequence.tasks[task_id]
        try:
            compute_score(model, learner.sequence, learner.stream, store, tasks_seen, task_id)
        except Exception as error:
            # the traceback names no task, and the failure of a scoring task only the state
            error.add_note(f"while the state after {tasks_seen} tasks was scored on task {position.task!r}")
            raise


def is_complete(sequence: SequencePlan, store: Store) -> bool:
    """Whether every state and every score of a sequence is there."""
    for key in sequence.keys[1:]:
        if not store.has(key):
            return False
    for tasks_seen in range(len(sequence.keys)):
        if missing_scores(sequence, tasks_seen, store):
            return False
    return True


def tasks_trained(sequence: SequencePlan, tasks_seen: int) -> int:
    """The number of tasks whose state the one after `tasks_seen` tasks is: 0 while a reference run has trained nothing."""
    kind = sequence.method.run_kind
    for task_id in range(tasks_seen):
        if kind.is_trained(task_id, len(sequence.tasks)):
            return tasks_seen
    return 0


class _SequenceRun:
    """One sequence while it runs, as one worker sees it. What the learner holds is in `learner.state` alone."""

    def __init__(self, sequence: SequencePlan, parallel: Parallel, report: Report | None) -> None:
        self.sequence = sequence
        self.parallel = parallel
        self.store = Store(Path(sequence.out))
        self.record = SequenceRecord(sequence, parallel, report)
        self.position = Position()
        # The tasks that were trained here, not found
        self.trained: set[int] = set()

    @cached_property
    def stream(self) -> Stream:
        """The tasks."""
        return self.sequence.open_stream()

    @cached_property
    def learner(self) -> Learner:
        """The model and the method; nothing is loaded yet."""
        return Learner(self.sequence, self.stream, self.parallel)

    def start(self) -> None:
        """Record the start, and refuse data that is not that of the plan."""
        self.record.sequence_started(self.stream)
        check_unchanged(self.sequence, self.stream)

    def is_own_fault(self, error: Exception) -> bool:
        """Whether the sequence itself is wrong, so that trying again is in vain.

        Not where the storage or the device failed; and among several workers most errors may be another worker's death.
        """
        if isinstance(error, SequenceFailed | ValueError | TypeError | NotImplementedError):
            return True
        # what a lost connection to another worker raises is none of these
        if isinstance(error, LookupError | ArithmeticError | AttributeError | NameError | AssertionError):
            return True
        broken_device = isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)
        return self.parallel.count == 1 and not isinstance(error, OSError) and not broken_device

    # Making states

    def ensure_stored(self, tasks_seen: int) -> None:
        """See to it that the store has the state after so many tasks; the learner need not hold it afterwards.

        It is found there, or made by another process, which is waited for, or trained here, with all states that are missing
        before it.
        """
        while (missing := self._first_missing(tasks_seen)) is not None:
            self._train_or_wait(missing)

    def _first_missing(self, tasks_seen: int) -> int | None:
        """The first state that has to be made on the way to that one: the one before it can be loaded, or is held."""
        missing = None
        candidate = tasks_seen
        while candidate > 0 and not self.store.has(self.sequence.keys[candidate]):
            missing = candidate
            candidate -= 1
            if self.learner.state.is_after(candidate, "train"):
                break
        # Another process may finish a checkpoint between two workers' looks
        return self.parallel.agree(missing)

    def _train_or_wait(self, tasks_seen: int) -> None:
        """Train the last task of a state that is missing; or return after a while if another process is at it."""
        key = self.sequence.keys[tasks_seen]
        self.position.task = self.sequence.tasks[tasks_seen - 1]
        with self._lock(key, timeout=5) as is_mine:
            made_meanwhile = self.store.has(key)
            if not self.parallel.agree(is_mine and not made_meanwhile):
                return
            if not self.sequence.method.run_kind.is_trained(tasks_seen - 1, len(self.sequence.tasks)):
                self._keep_initial_state(tasks_seen - 1)
            elif self._load(tasks_seen - 1, "train"):
                self._train(tasks_seen - 1)
            # Else the state before turned out to be corrupt, and is the first that is missing now

    def _keep_initial_state(self, task_id: int) -> None:
        """Store a state after a task that a reference run leaves out: no weights differ from the initial model's."""
        self.record.task_started(task_id, steps=0)
        nothing_done = TaskLog(self.record.add).history(seconds=0.0, diagnostics={})
        self._save(task_id, State({}, {}, nothing_done))

    def _train(self, task_id: int) -> None:
        """Train one task and save its state."""
        task = self.sequence.tasks[task_id]
        self.record.task_started(task_id, task_steps(self.learner, task_id))
        sampler = SystemSampler(self.record.add)

        def report(event: Event) -> None:
            self.record.add(event)
            sampler.tick()

        state = train_task(self.learner, task_id, report, self.position)
        tensors = list(state.weights.values())
        if state.resume_state is not None:
            tensors += state.resume_state.weights.values()
        # The loss of the last step was taken before that step changed the weights
        if not self.parallel.all_finite(tensors):
            raise NonFiniteLoss(f"the weights are not finite after task {task!r}")
        self._save(task_id, state)

    def _save(self, task_id: int, state: State) -> None:
        sequence = self.sequence
        if self.parallel.writes:
            made_by = {"sequence": sequence.id, "task": sequence.tasks[task_id], "versions": dict(library_versions())}
            self.store.save(sequence.keys[task_id + 1], state, made_by | sequence.model_dump(mode="json"))
        # Nobody goes on before the checkpoint is there
        self.parallel.barrier()
        self.trained.add(task_id)

    # Loading states

    def _ensure_loaded(self, tasks_seen: int, purpose: Purpose) -> None:
        """Have the learner hold a state that was stored; one that is corrupt by now is made again."""
        while not self._load(tasks_seen, purpose):
            self.ensure_stored(tasks_seen)

    def _load(self, tasks_seen: int, purpose: Purpose) -> bool:
        """Have the learner hold a state; False where its checkpoint is corrupt, which is then set aside."""
        trained = tasks_trained(self.sequence, tasks_seen)
        if self.learner.state.is_after(trained, purpose):
            return True
        if trained == 0:
            self.learner.load_initial()
            return True
        key = self.sequence.keys[tasks_seen]
        # One worker reads all bytes for the checksums, the others take its word
        if self.parallel.agree(self.parallel.writes and self.store.is_sound(key)):
            self.learner.load(self.store.load(key, resume_state=purpose == "train"), tasks_seen)
            return True
        self._set_aside(key)
        return False

    def _set_aside(self, key: str) -> None:
        """Move a corrupt checkpoint out of the way."""
        with self._lock(key, timeout=-1):
            # Still corrupt: another sequence may have made it again meanwhile
            if self.parallel.writes and self.store.has(key) and not self.store.is_sound(key):
                self.store.set_aside(key)
                self.record.add(events.CheckpointCorrupt(key=key))
        self.parallel.barrier()

    @contextlib.contextmanager
    def _lock(self, key: str, timeout: float) -> Iterator[bool]:
        """Lock a state for all workers, on the one that writes; gives False if it is still taken after `timeout` seconds."""
        if not self.parallel.writes:
            yield True
            return
        with self.store.lock(key, timeout) as is_mine:
            yield is_mine

    # Scoring

    def score(self, tasks_seen: int) -> None:
        """Compute the missing scores of a state, the workers sharing the tasks, and record all of them."""
        missing = self.parallel.agree(missing_scores(self.sequence, tasks_seen, self.store))
        if missing:
            self._ensure_loaded(tasks_seen, "score")
            _compute_scores(self.learner, self.store, tasks_seen, self.parallel.share_of(missing), self.position)
            self.parallel.barrier()
        if self.parallel.writes:
            for event in score_events(self.sequence, tasks_seen, self.store):
                self.record.add(event)
