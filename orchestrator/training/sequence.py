"""One sequence from its first task to its last, in any Python process, alone or as one of several workers."""

from __future__ import annotations

import contextlib
from functools import cached_property
from pathlib import Path

import torch

from orchestrator.errors import NonFiniteLoss, SequenceFailed
from orchestrator.evaluation.scores import compute_score, missing_scores, score_events
from orchestrator.planning.keys import check_unchanged
from orchestrator.planning.recovery import checkpoint_event, step_events
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store import events
from orchestrator.store.checkpoints import State, Store
from orchestrator.store.events import Event, Report
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.store.view import View, read_view
from orchestrator.training.cost import task_steps
from orchestrator.training.environment import SystemSampler, describe
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from orchestrator.training.task import NO_STEPS, train_task
from streams import Stream


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
    to `report`. Raises SequenceFailed after noting it; whatever was made before stays.
    """
    run = _Run(sequence, parallel or Parallel.current(), report)
    try:
        run.record(started_event(sequence, run.stream, run.parallel))
        check_unchanged(sequence, run.stream)
        if evaluate:
            run.score(0)
        for task_id in range(len(sequence.tasks))[:until]:
            run.ensure_trained(task_id + 1)
            run.record_checkpoint(task_id)
            if evaluate:
                run.score(task_id + 1)
    except Exception as error:
        if not run.own_fault(error):
            raise
        run.record(events.SequenceFailed(reason=reason(error)))
        raise error if isinstance(error, SequenceFailed) else SequenceFailed(reason(error)) from error
    if until is None or until >= len(sequence.tasks):
        run.record(events.SequenceFinished())
    return read_view(sequence.out, sequence.id)


def reason(error: Exception) -> str:
    """One line on why a sequence failed."""
    lines = str(error).strip().splitlines()
    said = lines[0] if lines else "no message"
    return said if isinstance(error, SequenceFailed) else f"{type(error).__name__}: {said}"


def score_state(sequence: SequencePlan, row: int, parallel: Parallel | None = None) -> None:
    """Fill the missing cells of one row, from the stored state. Notes nothing in the journal."""
    store = Store(Path(sequence.out))
    missing = missing_scores(sequence, row, store)
    if not missing:
        return
    stream = sequence.open_stream()
    check_unchanged(sequence, stream)
    learner = Learner(sequence, stream, parallel or Parallel.current())
    _ = learner.family
    if row > 0:
        if not store.is_sound(sequence.keys[row]):
            raise ValueError(f"checkpoint {store.path(sequence.keys[row])} is missing or changed")
        learner.load_state(store.load(sequence.keys[row]), row)
    for column in missing:
        compute_score(learner.scored_model(), sequence, stream, store, row, column)


def is_complete(sequence: SequencePlan, store: Store) -> bool:
    """Whether every state and every cell of a sequence is there."""
    states = all(store.has(key) for key in sequence.keys[1:])
    return states and not any(missing_scores(sequence, row, store) for row in range(len(sequence.keys)))


def started_event(sequence: SequencePlan, stream: Stream, parallel: Parallel) -> Event:
    """The journal's first event: the whole configuration, the data and the software."""
    return events.SequenceStarted(
        id=sequence.id,
        tasks=sequence.tasks,
        sequence=sequence.model_dump(mode="json", exclude={"score_keys"}),
        data=stream.manifest(),
        workers=parallel.count,
        device=str(parallel.device),
        **describe(),
    )


class _Run:
    """What the steps of one sequence share."""

    def __init__(self, sequence: SequencePlan, parallel: Parallel, report: Report | None) -> None:
        self.sequence, self.parallel, self.report = sequence, parallel, report
        self.store = Store(Path(sequence.out))
        self.journal = Journal(journal_folder(sequence.out, sequence.id))
        self.known = read_view(sequence.out, sequence.id)
        self.trained: set[int] = set()

    def own_fault(self, error: Exception) -> bool:
        """Whether the sequence itself is wrong, so that trying again is in vain.

        Not where the storage or the device failed; and among several workers most errors may be another worker's death.
        """
        if isinstance(error, SequenceFailed | ValueError | TypeError | NotImplementedError):
            return True
        broken_device = isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)
        return self.parallel.count == 1 and not isinstance(error, OSError) and not broken_device

    @cached_property
    def stream(self) -> Stream:
        """The tasks."""
        return self.sequence.open_stream()

    @cached_property
    def learner(self) -> Learner:
        """The model and the method."""
        return Learner(self.sequence, self.stream, self.parallel)

    def record(self, event: Event) -> None:
        """Note a fact, journal first. What the journal has already (of a run that was stopped) is not noted twice."""
        if self.parallel.writes and self.known.add(event):
            self.journal.append(event)
            if self.report:
                self.report(event)

    def ensure_trained(self, row: int) -> None:
        """See to it that the store has the state after task `row`: find it there, wait for another who makes it, or train.

        The learner need not hold it afterwards.
        """
        key = self.sequence.keys[row]
        while True:
            first = self.parallel.writes
            with self.store.lock(key, timeout=5) if first else contextlib.nullcontext(True) as mine:
                todo = self.parallel.agree("use" if self.store.has(key) else "train" if mine else "wait")
                if todo == "use":
                    return
                if todo == "train":
                    self.ensure_loaded(row - 1, to_train=True)
                    self.train(row - 1)
                    return

    def ensure_loaded(self, row: int, to_train: bool = False) -> None:
        """Bring the learner to the state after task `row`. A checkpoint that is corrupt is set aside and made again."""
        kind = self.sequence.method.run_kind
        if not any(kind.is_trained(t, len(self.sequence.tasks)) for t in range(row)):
            if self.learner.row is None or self.learner.row > row:
                self.learner.begin()
            self.learner.row = row
            return
        while not self.learner.holds(row, to_train):
            key = self.sequence.keys[row]
            if self.parallel.agree(self.store.is_sound(key) if self.parallel.writes else None):
                self.learner.load_state(self.store.load(key, resume_state=to_train), row)
                return
            if self.parallel.writes:
                with self.store.lock(key, timeout=-1):
                    if not self.store.is_sound(key):  # still: another sequence may have made it again meanwhile
                        self.store.set_aside(key)
                        self.record(events.CheckpointCorrupt(key=key))
            self.parallel.barrier()
            self.ensure_trained(row)

    def train(self, task_id: int) -> None:
        """Train one task and save its state. Where a reference run leaves the task out, the state is that before training."""
        sequence = self.sequence
        if not sequence.method.run_kind.is_trained(task_id, len(sequence.tasks)):
            self.record(self._task_started(task_id, 0, reused=False))
            self.save(task_id, State({}, {}, NO_STEPS))
            self.learner.row = task_id + 1
            return
        self.record(self._task_started(task_id, task_steps(self.learner, task_id), reused=False))
        sampler = SystemSampler(self.record)

        def note(event: Event) -> None:
            self.record(event)
            sampler.tick()

        history = train_task(self.learner, task_id, note)
        state = self.learner.to_state(history)
        resumed = state.resume_state.weights if state.resume_state else {}
        if not self.parallel.all_finite([*state.weights.values(), *resumed.values()]):
            raise NonFiniteLoss(f"the weights are not finite after task {sequence.tasks[task_id]!r}")
        self.save(task_id, state)

    def save(self, task_id: int, state: State) -> None:
        """Write a checkpoint, on the worker that writes."""
        sequence = self.sequence
        if self.parallel.writes:
            made_by = {"sequence": sequence.id, "task": sequence.tasks[task_id], **sequence.model_dump(mode="json")}
            self.store.save(sequence.keys[task_id + 1], state, made_by)
        self.parallel.barrier()  # nobody goes on before the checkpoint is there
        self.trained.add(task_id)

    def _task_started(self, task_id: int, steps: int, reused: bool) -> Event:
        name = self.sequence.tasks[task_id]
        return events.TaskStarted(task_id=task_id, task=name, steps=steps, reused=reused)

    def record_checkpoint(self, task_id: int) -> None:
        """Note where the state is; of a state that was found, also how it was trained."""
        if not self.parallel.writes:
            return
        saved = checkpoint_event(self.sequence, task_id, self.store)
        if task_id not in self.trained:
            steps = step_events(self.sequence, task_id, self.store)
            self.record(self._task_started(task_id, len(steps), saved.reused))
            for step in steps:
                self.record(step)
        self.record(saved)

    def score(self, row: int) -> None:
        """Fill the missing cells of a row, the workers sharing the tasks, and note the row."""
        missing = self.parallel.agree(missing_scores(self.sequence, row, self.store))
        if missing:
            self.ensure_loaded(row)
        for column in self.parallel.share_of(missing):
            compute_score(self.learner.scored_model(), self.sequence, self.stream, self.store, row, column)
        if missing:
            self.parallel.barrier()
        if self.parallel.writes:
            for event in score_events(self.sequence, row, self.store):
                self.record(event)
