"""What a training worker of a group does."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator import logs
from orchestrator.cluster.leaving import Leaving, is_asked_to_leave, take_back
from orchestrator.cluster.ray_logs import RayProcess, copy_ray_logs, introduce, introduction
from orchestrator.errors import NonFiniteLoss, Preempted, SequenceFailed, WorkerFailed
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.storage.places import folder_at
from orchestrator.store import events
from orchestrator.store.checkpoints import Store
from orchestrator.store.failure_notes import FailureNotes
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.store.locks import BEAT_SECONDS, GONE_SECONDS
from orchestrator.store.records.event import now_ms
from orchestrator.store.view import View, read_view
from orchestrator.training.parallel import Parallel
from orchestrator.training.sharding import Strategy, current_workers

logger = logging.getLogger(__name__)

# a group's other workers wait in an exchange for what the first one takes, and that has a time limit of minutes
TAKE_SECONDS = 20.0

# What a group finds where it would take a sequence: it is to train it, another group of this run holds it, or it has ended
Found = Literal["due", "elsewhere", "over"]


@dataclass(frozen=True)
class _Worker:
    """This worker of a group: its place among them, its process, and who asks it to leave."""

    parallel: Parallel
    process: RayProcess
    is_to_leave: Callable[[], bool]


def work_through(settings: dict[str, Any]) -> None:
    """Train the sequences that no other group has taken, one after the other: what every worker of a group runs.

    To take a sequence is to hold its lock in the storage, which ends with its holder. So a group that died is followed by
    itself or by another, and both go on from the last checkpoint.
    """
    with _introduced(settings) as worker:
        _work_through(settings, worker)


def take_jobs(settings: dict[str, Any]) -> None:
    """Work through the sequences of one job after the other, until there are no more: what a group's workers run that stay."""
    import ray

    queue = settings["queue"]
    # what stays the same, whoever gives the job
    own = {"group": settings["group"], "run_logs": settings["run_logs"], "introductions": settings["introductions"]}
    with _introduced(settings) as worker:
        while True:
            job = None
            if worker.parallel.writes:
                job = ray.get(queue.take.remote(settings["group"], TAKE_SECONDS))
            job = worker.parallel.agree(job)
            if job is None:
                return
            # an empty one: none has come yet
            if job:
                _work_through(job | own, worker)
                if worker.parallel.writes:
                    ray.get(queue.end.remote(settings["group"]))


@contextlib.contextmanager
def _introduced(settings: dict[str, Any]) -> Iterator[_Worker]:
    """This worker, whose name is written down where the group is looked after; it comes back when it is asked to leave.

    Where it leaves for another reason, such as a machine that is taken away, Ray Train starts the group anew elsewhere.
    """
    parallel = _join_group(settings["strategy"])
    leave = folder_at(settings["leave"])
    resize = folder_at(settings["resize"])
    is_to_leave: Callable[[], bool] = _never
    # it speaks for all
    if parallel.writes:
        is_to_leave = Leaving(leave, resize)
    process = introduce(introduction(folder_at(settings["introductions"]), parallel.rank))
    try:
        yield _Worker(parallel, process, is_to_leave)
    except Preempted:
        if parallel.writes:
            # who waits for the group to be gone may start the next one
            take_back(resize)
        if not parallel.agree(is_asked_to_leave(leave)):
            raise


def _never() -> bool:
    return False


def _work_through(settings: dict[str, Any], worker: _Worker) -> None:
    left = [SequencePlan.model_validate(values) for values in settings["sequences"]]
    elsewhere = _go_through(left, settings, worker)
    # Those that other groups train, unless their machine is gone, and with it who would go on: that shows after a while
    ends = time.monotonic() + GONE_SECONDS + 2 * BEAT_SECONDS
    while worker.parallel.agree(bool(elsewhere) and time.monotonic() < ends):
        elsewhere = _go_through(elsewhere, settings, worker)


def _go_through(sequences: Sequence[SequencePlan], settings: dict[str, Any], worker: _Worker) -> list[SequencePlan]:
    """Train what is due of the sequences. Returns those that another group of this run holds."""
    elsewhere = []
    for sequence in sequences:
        if worker.parallel.agree(worker.is_to_leave()):
            raise Preempted("left before the next sequence")
        with _taken(sequence, settings, worker.parallel) as found:
            if found == "due":
                _train(sequence, settings, worker)
            elif found == "elsewhere":
                elsewhere.append(sequence)
    return elsewhere


def _join_group(strategy: Strategy) -> Parallel:
    """The group's workers, seen from this one, on the device that Ray gave it."""
    import ray.train.torch
    import torch

    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return current_workers(device, strategy)


@contextlib.contextmanager
def _taken(sequence: SequencePlan, settings: dict[str, Any], parallel: Parallel) -> Iterator[Found]:
    """Hold a sequence's lock if it is free and the sequence is due; the first worker tries for all of the group."""
    if not parallel.writes:
        # any value: `agree` gives every worker what the first one says
        yield parallel.agree("over")
        return
    with _lock_sequence(sequence, settings["run"]) as locked:
        found: Found = "elsewhere"
        if locked:
            found = "due" if is_due(sequence, settings) else "over"
        yield parallel.agree(found)


def _train(sequence: SequencePlan, settings: dict[str, Any], worker: _Worker) -> None:
    """Train one sequence. Returns if it failed by its own fault and the group can go on to the next one."""
    from orchestrator.training.sequence import run_sequence

    parallel = worker.parallel
    attempt = events.Attempt(settings["run"], parallel.agree(uuid.uuid4().hex))
    introduce(introduction(folder_at(settings["introductions"]), parallel.rank), attempt.id)
    with logs.to_file(logs.worker_log(sequence.out, sequence.id, parallel.rank)):
        logger.info("worker %d of %d (%s) takes %s", parallel.rank, parallel.count, worker.process, sequence.id)
        try:
            run_sequence(
                sequence,
                evaluate=settings["evaluate"],
                parallel=parallel,
                until=settings["until"],
                leave=worker.is_to_leave,
                attempt=attempt,
            )
        except Preempted as error:
            logger.info("worker %d of %d leaves: %s", parallel.rank, parallel.count, error)
            raise
        except Exception as error:
            name = f"{settings['group']}-worker-{parallel.rank}"
            copy_ray_logs(worker.process, folder_at(settings["run_logs"]), name)
            leave_group_unless_alone(error, parallel)
        else:
            logger.info("worker %d of %d is done with %s", parallel.rank, parallel.count, sequence.id)


def leave_group_unless_alone(error: Exception, parallel: Parallel) -> None:
    """Raise where the group has to be started again.

    What is raised has a plain message: a user's own class of error need not exist in the process that receives it.
    """
    if not isinstance(error, SequenceFailed):
        raise WorkerFailed(logs.reason(error)) from error
    # Every worker raises it at the same point, since it follows from what all of them have computed together
    if isinstance(error, NonFiniteLoss):
        return
    # The others may wait in an exchange for this worker, for half an hour, and would take its next one for an answer: a group
    # that is started anew is in step for sure.
    if parallel.count > 1:
        raise SequenceFailed(str(error)) from error


@contextlib.contextmanager
def _lock_sequence(sequence: SequencePlan, run: str) -> Iterator[bool]:
    """Try to be the only one that trains a sequence; False if another group of this run does.

    A process that still holds it from an earlier run, one that was killed, is waited for.
    """
    store = Store(folder_at(sequence.out))
    while True:
        with store.lock(f"sequence-{sequence.id}", timeout=1) as locked:
            if locked:
                yield True
                return
        if read_view(sequence.out, sequence.id).last_attempt.run == run:
            yield False
            return


def is_due(sequence: SequencePlan, settings: dict[str, Any]) -> bool:
    """Whether a sequence has not ended in this run. One that cannot go on, or whose workers died too often, ends here."""
    view = read_view(sequence.out, sequence.id)
    if settings["until"] and _has_reached(view, settings["until"], settings["evaluate"]):
        return False
    if view.last_attempt.run != settings["run"]:
        return True
    if view.has_ended:
        return False
    failure = _final_failure(sequence, view, settings)
    if failure is None:
        return True
    # of a worker that ended without a word, what the journal tells of where it was
    if not failure.method:
        failure = failure.model_copy(update={"method": sequence.method.label, "task": _task_in_training(view)})
    Journal(journal_folder(sequence.out, sequence.id)).append(failure)
    return False


def _task_in_training(view: View) -> str | None:
    """The task that was begun and not ended; None where no training was under way."""
    # the last of them: the state of the one before may still have been written
    for task_id, task in reversed(view.by_task.items()):
        if task.started is not None and task.checkpoint is None:
            return view.tasks[task_id]
    return None


def _final_failure(sequence: SequencePlan, view: View, settings: dict[str, Any]) -> events.SequenceFailed | None:
    """The event that ends a sequence after the attempts of this run; None where it is to be tried again."""
    notes = FailureNotes(logs.sequence_logs(sequence.out, sequence.id), folder_at(settings["run_logs"]))
    cause = notes.cause(view.last_attempt.id)
    # a worker other than the first found the fault, and could not write it into the sequence's journal
    if cause and not cause.transient:
        return cause.model_copy(update={"time": now_ms()})
    # Deaths with nothing done between. An attempt of which nobody noted a failure was asked to leave
    deaths = 0
    for attempt in view.attempts:
        if attempt.run == settings["run"] and notes.cause(attempt.id):
            deaths += 1
    if cause is None or deaths <= settings["max_failures"]:
        return None
    how_often = "once" if deaths == 1 else f"{deaths} times"
    reason = f"its workers died {how_often} (scaling.max_failures is {settings['max_failures']}); the last time: {cause.reason}"
    return cause.model_copy(update={"time": now_ms(), "reason": reason, "transient": False})


def _has_reached(view: View, until: int, scored: bool) -> bool:
    """Whether a sequence has trained so many tasks, and scored them where the workers do that."""
    for task_id in range(until):
        task = view.by_task.get(task_id)
        if task is None or not task.checkpoint:
            return False
    if not scored:
        return True
    for tasks_seen in range(until + 1):
        if not view.has_all_scores(tasks_seen):
            return False
    return True
