"""When a task's state is written amid its steps, where one is found, and when its training is left."""

from __future__ import annotations

import functools
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from torch import Tensor

from methods.shared.shards import is_sharded
from orchestrator.errors import Preempted
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store import events
from orchestrator.store.checkpoints import State, Store
from orchestrator.store.events import PointScored, parse_event
from orchestrator.store.records.event import Report
from orchestrator.store.states.in_task import InTaskStates
from orchestrator.store.states.state_files import pack_state
from orchestrator.store.states.tensor_files import raw_bytes
from orchestrator.store.states.writer import StateWriter
from orchestrator.training.in_task.running_task import FORMAT, RunningTask
from orchestrator.training.parallel import Parallel

logger = logging.getLogger(__name__)


class Wishes(NamedTuple):
    """What a worker wants after a step, as numbers that are summed over workers: a state written; to leave."""

    save: float = 0.0
    leave: float = 0.0


NO_WISHES = Wishes()


class TaskCheckpoints:
    """The states inside one task of a sequence, as one worker sees them. `points` are the scores amid the task so far."""

    def __init__(
        self,
        sequence: SequencePlan,
        task_id: int,
        parallel: Parallel,
        store: Store,
        report: Report,
        leave: Callable[[], bool],
        points: list[PointScored],
    ) -> None:
        self.config = sequence.checkpoints
        self.sequence = sequence
        self.task_id = task_id
        self.parallel = parallel
        self.report = report
        self.leave = leave
        self.points = points
        self.states = InTaskStates(store.root, sequence.keys[task_id + 1])
        self.writer = StateWriter()
        self.written: events.ProgressSaved | None = None
        self.last_time = time.monotonic()
        self.is_possible = True

    def resume(self, running: RunningTask) -> None:
        """Have a task go on where its newest state is, if there is one."""
        found = self._found()
        if found is None:
            return
        running.go_on_from(found)
        for values in found.history["points"]:
            point = parse_event(values)
            assert isinstance(point, PointScored)
            self.points.append(point)
            self.report(point)
        logger.info("task %r goes on after step %d", self.sequence.tasks[self.task_id], running.steps_done)

    def _found(self) -> State | None:
        """The newest state, on every worker."""
        state = self.states.newest() if self.parallel.writes else None
        is_there = self.parallel.agree(state is not None and state.history["format"] == FORMAT)
        if not is_there:
            return None
        # only the worker that writes removes what is damaged, so the others find what it has found
        return state or self.states.newest()

    def wishes(self, step: int) -> Wishes:
        """What this worker wants after that step, which is about to be made."""
        # what the clock says may differ between workers, so that one is asked
        every_seconds = self.config.every_seconds
        is_due = False
        if every_seconds is not None and self.parallel.writes and self.writer.is_idle:
            is_due = time.monotonic() - self.last_time >= every_seconds
        every_steps = self.config.every_steps
        if every_steps is not None:
            is_due = is_due or step % every_steps == 0
        return Wishes(float(is_due), float(self.leave()))

    def after_step(self, running: RunningTask, wishes: Sequence[float]) -> None:
        """Do what any worker wanted. Raises Preempted where one wants to leave, when the state is written."""
        save, leave = wishes
        if self.writer.has_ended:
            self._note_written()
        # the whole state comes right after the last step
        if running.steps_done == running.learner.num_steps or not (save or leave):
            return
        self._save(running)
        if leave:
            self.close()
            self.parallel.barrier()
            raise Preempted(f"left task {self.sequence.tasks[self.task_id]!r} after step {running.steps_done}")

    def _save(self, running: RunningTask) -> None:
        """Copy the state, and begin to write it."""
        method_state = running.method_state()
        if self.parallel.count > 1 and not self.parallel.all_say(_digest(method_state)):
            # a worker that is replaced would go on with another one's part of it
            if self.is_possible:
                logger.warning("no checkpoints inside a task: what the method holds differs between workers")
            self.is_possible = False
            return
        state = running.state(method_state)
        if self.parallel.writes:
            self._wait()
            points = [point.to_json() for point in self.points]
            packed = pack_state(
                State(state.weights, state.method, {**state.history, "points": points}, state.resume_state)
            )
            self.writer.start(functools.partial(self._write, running.steps_done, packed), ExitStack())
        self.last_time = time.monotonic()

    def _write(self, step: int, packed: Any) -> None:
        began = time.monotonic()
        size = self.states.write(step, packed, {"sequence": self.sequence.id, "step": step})
        self.written = events.ProgressSaved(
            task_id=self.task_id,
            task=self.sequence.tasks[self.task_id],
            step=step,
            bytes=size,
            seconds=round(time.monotonic() - began, 3),
        )

    def _wait(self) -> None:
        """Wait for the state that is being written. Raises what its writing raised."""
        if not self.writer.is_idle:
            self._note_written()

    def _note_written(self) -> None:
        self.writer.wait()
        assert self.written is not None
        self.report(self.written)

    def close(self) -> None:
        """Wait for what is being written, and end its thread."""
        try:
            self._wait()
        finally:
            self.writer.close()


def _digest(node: Any) -> str:
    """A hash of what a worker holds alone: of nested mappings of tensors and plain values."""
    digest = hashlib.sha256()
    _update(digest, node)
    return digest.hexdigest()


def _update(digest: Any, node: Any) -> None:
    if isinstance(node, Mapping):
        for key, value in node.items():
            digest.update(str(key).encode())
            _update(digest, value)
    elif not isinstance(node, Tensor):
        digest.update(repr(node).encode())
    # of a sharded tensor each worker has its own part by design
    elif not is_sharded(node):
        digest.update(raw_bytes(node.detach().cpu().contiguous()))
