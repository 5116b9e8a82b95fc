"""One sequence from its first task to its last, in any Python process, alone or as one of several workers."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

import torch

from orchestrator.determinism import deterministic
from orchestrator.errors import NonFiniteLoss, Preempted, SequenceFailed, StorageFailed
from orchestrator.evaluation.columns import column_events, missing_columns
from orchestrator.evaluation.curves.during import Looks
from orchestrator.planning.kept_streams import kept_stream
from orchestrator.planning.keys import check_unchanged
from orchestrator.planning.recovery import save_points
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.storage.places import folder_at
from orchestrator.store import events
from orchestrator.store.checkpoints import State, Store
from orchestrator.store.environment import SystemSampler
from orchestrator.store.events import PointScored
from orchestrator.store.records.event import Event, Report
from orchestrator.store.view import View, read_view
from orchestrator.training.cost import task_steps
from orchestrator.training.in_task.checkpoints import TaskCheckpoints
from orchestrator.training.in_task.log import TaskLog, no_look
from orchestrator.training.learner import Learner
from orchestrator.training.learner_state import NOTHING_WHOLE, Purpose, free_memory
from orchestrator.training.parallel import Parallel
from orchestrator.training.record import SequenceRecord, StateSaver, reason
from orchestrator.training.scoring import PointScorer, compute_scores, tasks_trained
from orchestrator.training.task import Position, train_task
from streams import Stream

logger = logging.getLogger(__name__)


def run_sequence(
    sequence: SequencePlan,
    report: Report | None = None,
    evaluate: bool = True,
    parallel: Parallel | None = None,
    until: int | None = None,
    leave: Callable[[], bool] | None = None,
    attempt: events.Attempt = events.NO_ATTEMPT,
) -> View:
    """Train every task that the store does not have yet, and score every state unless `evaluate` is False.

    `until` ends it after that many tasks; a later call goes on from there. `leave` is asked after each step and between
    tasks; where any worker's says so, Preempted is raised on all of them, with the state inside the task written.

    Must be called on every worker of the process group. Each fact goes to the sequence's journal and then to `report`;
    `attempt` names this call in them. Raises SequenceFailed after recording it; whatever was made before stays.
    """
    run = _SequenceRun(sequence, parallel or Parallel.current(), report, leave or (lambda: False))
    run.record.attempt = attempt
    task_ids = range(len(sequence.tasks))[:until]
    try:
        with deterministic(sequence.training.deterministic):
            run.work(task_ids, evaluate)
    except Preempted:
        run.saver.finish_alone()
        raise
    except Exception as error:
        # on every worker: the one that fails may not be the one that writes the journal
        failed = run.record.note_failure(error, run.position, transient=not run.is_own_fault(error))
        run.saver.finish_alone()
        if failed.transient:
            raise
        run.record.add(failed)
        if isinstance(error, SequenceFailed):
            raise
        raise SequenceFailed(reason(error)) from error
    finally:
        run.saver.close()
        run.release()
    if len(task_ids) == len(sequence.tasks):
        run.record.add(events.SequenceFinished())
    return read_view(sequence.out, sequence.id)


class _SequenceRun:
    """One sequence while it runs, as one worker sees it. What the learner holds is in `learner.state` alone."""

    def __init__(
        self, sequence: SequencePlan, parallel: Parallel, report: Report | None, leave: Callable[[], bool]
    ) -> None:
        self.sequence = sequence
        self.parallel = parallel
        self.leave = leave
        self.store = Store(folder_at(sequence.out))
        self.record = SequenceRecord(sequence, parallel, report)
        self.position = Position()
        self.trained: set[int] = set()  # the tasks that were trained here, not found
        self.saver = StateSaver(sequence, parallel, self.store, self.record, self.position)

    @cached_property
    def stream(self) -> Stream:
        """The tasks."""
        return kept_stream(self.sequence)

    @cached_property
    def learner(self) -> Learner:
        """The model and the method; nothing is loaded yet."""
        return Learner(self.sequence, self.stream, self.parallel)

    @cached_property
    def looks(self) -> Looks | None:
        """What is scored amid training; None where that was not asked for."""
        during = self.sequence.evaluation.during
        if during is None:
            return None
        return Looks(during, self.sequence, self.stream)

    def work(self, task_ids: Iterable[int], evaluate: bool) -> None:
        """Record the start, refuse data that is not that of the plan, and train and score what is missing of these tasks."""
        self.record.sequence_started(self.stream)
        check_unchanged(self.sequence, self.stream)
        if evaluate:
            self.score(0)
        for task_id in task_ids:
            self.leave_if_asked()
            if not self.is_over(task_id + 1):
                self.ensure_stored(task_id + 1)
            if task_id not in self.trained:
                self.record.checkpoint(task_id, self.store, found=True)
            if evaluate:
                self.score(task_id + 1)
        self.saver.finish()

    def release(self) -> None:
        """Let go of the model: the next sequence's must not come on top of it."""
        self.__dict__.pop("learner", None)
        free_memory()

    def leave_if_asked(self) -> None:
        """Raises Preempted where any worker is asked to leave, between two tasks."""
        asked = torch.tensor(float(self.leave()), device=self.parallel.device)
        if self.parallel.sum(asked).item():
            raise Preempted(f"left {self.sequence.id} between two tasks")

    def is_own_fault(self, error: Exception) -> bool:
        """Whether the sequence itself is wrong, so that trying again is in vain.

        Not where the storage or the device failed; and among several workers most errors may be another worker's death.
        """
        # what a lost connection to another worker raises is none of these
        of_values = SequenceFailed | ValueError | TypeError | LookupError | ArithmeticError
        if isinstance(error, of_values | NotImplementedError | AttributeError | NameError | AssertionError):
            return True
        broken_device = isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)
        return self.parallel.count == 1 and not isinstance(error, OSError | StorageFailed) and not broken_device

    # Making states

    def is_over(self, tasks_seen: int) -> bool:
        """Whether a state was pruned once all of its scores were there: only a later task would need it again."""
        pruned = self.store.is_pruned(self.sequence.keys[tasks_seen])
        return self.parallel.agree(pruned and not missing_columns(self.sequence, tasks_seen, self.store))

    def ensure_stored(self, tasks_seen: int) -> None:
        """See to it that the store has the state after so many tasks, or gets it; the learner need not hold it afterwards.

        It is found there, or made by another process, which is waited for, or trained here, with all states that are missing
        before it.
        """
        while (missing := self._first_missing(tasks_seen)) is not None:
            self._train_or_wait(missing)

    def _first_missing(self, tasks_seen: int) -> int | None:
        """The first state that has to be made on the way to that one: the one before it can be loaded, or is held."""
        missing = None
        candidate = tasks_seen
        while candidate > 0 and not self._is_stored(candidate):
            missing = candidate
            candidate -= 1
            if self.learner.state.is_after(candidate, "train"):
                break
        # Another process may finish a checkpoint between two workers' looks
        return self.parallel.agree(missing)

    def _is_stored(self, tasks_seen: int) -> bool:
        return self.saver.writing == tasks_seen - 1 or self.store.has(self.sequence.keys[tasks_seen])

    def _train_or_wait(self, tasks_seen: int) -> None:
        """Train the last task of a state that is missing; or return after a while if another process is at it."""
        key = self.sequence.keys[tasks_seen]
        self.position.task = self.sequence.tasks[tasks_seen - 1]
        with contextlib.ExitStack() as held:
            is_mine = held.enter_context(self._lock(key, timeout=5))
            made_meanwhile = self.store.has(key)
            if not self.parallel.agree(is_mine and not made_meanwhile):
                return
            if not self.sequence.method.run_kind.is_trained(tasks_seen - 1, len(self.sequence.tasks)):
                self._keep_initial_state(tasks_seen - 1, held)
            elif self._load(tasks_seen - 1, "train"):
                with self._less_memory_on_failure():
                    self._train(tasks_seen - 1, held)
            # Else the state before turned out to be corrupt, and is the first that is missing now

    @contextlib.contextmanager
    def _less_memory_on_failure(self) -> Iterator[None]:
        """Where a task runs out of memory, have it train anew with a smaller micro-batch if that may be chosen."""
        try:
            yield
        except torch.OutOfMemoryError:
            # of several workers the others wait for this one: all of them are started again, and find what it noted
            if not self.learner.micro_batch.shrink() or self.parallel.count > 1:
                raise
        else:
            return
        # outside, since the error holds what the step had in memory
        self.learner.hold(NOTHING_WHOLE)
        free_memory()

    def _keep_initial_state(self, task_id: int, held: contextlib.ExitStack) -> None:
        """Store a state after a task that a reference run leaves out: no weights differ from the initial model's."""
        self.record.task_started(task_id, steps=0)
        nothing_done = TaskLog(self.record.add).history({})
        self.saver.start(task_id, State({}, {}, nothing_done), held)
        # All such tasks have one key, which the next one would look for at once
        self.saver.finish()
        self.trained.add(task_id)

    def _train(self, task_id: int, held: contextlib.ExitStack) -> None:
        """Train one task and begin to save its state."""
        task = self.sequence.tasks[task_id]
        num_steps = task_steps(self.learner, task_id)
        self.record.task_started(task_id, num_steps)
        sampler = SystemSampler(self.record.add)

        def report(event: Event) -> None:
            self.record.add(event)
            sampler.tick()
            self.saver.look()

        state, points = self._train_and_look(task_id, num_steps, report)
        tensors = list(state.weights.values())
        if state.resume_state is not None:
            tensors += state.resume_state.weights.values()
        # The loss of the last step was taken before that step changed the weights
        if not self.parallel.all_finite(tensors):
            raise NonFiniteLoss(f"the weights are not finite after task {task!r}")
        if points and self.sequence.points_keys and self.parallel.writes:
            # before the state, with which another sequence will look for them
            save_points(self.sequence, task_id, points, self.store)
        self.saver.start(task_id, state, held)
        self.trained.add(task_id)

    def _train_and_look(self, task_id: int, num_steps: int, report: Report) -> tuple[State, Sequence[PointScored]]:
        """Train one task, and give the scores amid it too, which are none unless `evaluation.during` asks for them."""
        look, points = no_look, list[PointScored]()
        if self.looks is not None:
            look = PointScorer(self.learner, self.looks, task_id, num_steps, report, points).look
        if not self.parallel.goes_on_inside:
            return train_task(self.learner, task_id, report, self.position, look), points
        inside = TaskCheckpoints(self.sequence, task_id, self.parallel, self.store, report, self.leave, points)
        try:
            return train_task(self.learner, task_id, report, self.position, look, inside), points
        finally:
            inside.close()

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
        self.saver.finish()
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
        missing = self.parallel.agree(missing_columns(self.sequence, tasks_seen, self.store))
        if missing:
            self._ensure_loaded(tasks_seen, "score")
            compute_scores(self.learner, self.store, tasks_seen, self.parallel.share_of(missing), self.position)
            self.parallel.barrier()
        # The state was scored from memory while it was being written; that it is there is said before what it scores
        self.saver.finish()
        if self.parallel.writes:
            self.record.add_all(column_events(self.sequence, tasks_seen, self.store))
