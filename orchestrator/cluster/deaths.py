"""Notes of workers that ended without a word: killed, out of memory, or crashed in code that is not Python."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import ray.train

from orchestrator import logs
from orchestrator.cluster.ray_logs import copy_ray_logs, death, introduced, introduction
from orchestrator.errors import Preempted, SequenceFailed, WorkerFailed
from orchestrator.store import events
from orchestrator.store.failure_notes import note_failure

logger = logging.getLogger(__name__)


def _is_taken_away(error: Exception) -> bool:
    """Whether a worker died because its machine was taken away, as Ray had been told before."""
    # Ray Train wraps what it finds when it looks after a worker
    error = getattr(error, "health_check_failure", error)
    return isinstance(error, ray.exceptions.RayActorError) and error.preempted


class NoteDeaths(ray.train.UserCallback):
    """Is called by Ray Train, in the process that looks after a group of workers, when one of them has failed."""

    def __init__(self, group: str, introductions: Path, run_logs: Path) -> None:
        self.group = group
        self.introductions = introductions
        self.run_logs = run_logs

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for rank, error in worker_exceptions.items():
            # a worker that could still raise has written its own log and copied Ray's
            if not isinstance(error, SequenceFailed | WorkerFailed | Preempted) and not _is_taken_away(error):
                self._note(rank, error)
        # the next processes of these ranks may die before they say who they are
        for path in self.introductions.glob("*.json"):
            path.unlink(missing_ok=True)

    def _note(self, rank: int, error: Exception) -> None:
        process = introduced(introduction(self.introductions, rank))
        name = f"{self.group}-worker-{rank}"
        log = self.run_logs / f"{name}.log"
        what = death(f"worker {rank}", process, error)
        logs.write_failure(log, what, error)
        if process:
            copy_ray_logs(process, self.run_logs, name)
        failure = events.SequenceFailed(
            reason=what,
            traceback=logs.traceback_of(error),
            worker=rank,
            log=str(log),
            transient=True,
            # of one that died before it took anything up, a note on nothing
            attempt=process.attempt if process else "",
        )
        note_failure(self.run_logs, name, failure)
