"""Scores that are computed beside training, by Ray actors of their own."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

from orchestrator import logs
from orchestrator.cluster.ray_logs import copy_ray_logs, death, introduced
from orchestrator.cluster.scoring_pool import Job, ScoringPool, what_is_scored
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.storage.places import folder_at
from orchestrator.store import events
from orchestrator.store.checkpoints import Store
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.store.view import View

logger = logging.getLogger(__name__)


class AsyncScoring:
    """The states that are being scored beside training, and those that were taken up before."""

    def __init__(self, gpus: float, run_logs: Path) -> None:
        self.run_logs = run_logs
        self.pool = ScoringPool(gpus)
        self.taken: set[tuple[str, int]] = set()
        self.problems: list[str] = []

    def tick(self, sequences: Sequence[SequencePlan], views: Sequence[View]) -> None:
        """Start what can be scored, and note what has been."""
        for sequence, view in zip(sequences, views, strict=True):
            for tasks_seen in _stored_states(view):
                if (sequence.id, tasks_seen) not in self.taken and not view.has_all_scores(tasks_seen):
                    # also for what fails: it would fail again at each tick; `orchestrator evaluate` tries it anew
                    self.taken.add((sequence.id, tasks_seen))
                    self._start(sequence, tasks_seen)
        self._collect()

    @property
    def is_busy(self) -> bool:
        """Whether a state that was taken up is not scored yet."""
        return self.pool.is_busy

    def close(self) -> None:
        """Give back what scoring holds of the cluster."""
        self.pool.close()

    def _start(self, sequence: SequencePlan, tasks_seen: int) -> None:
        self.pool.submit(Job(sequence, tasks_seen, self._introduction(sequence, tasks_seen)))
        logger.info("to be done: %s", what_is_scored(sequence, tasks_seen))

    def _introduction(self, sequence: SequencePlan, tasks_seen: int) -> Path:
        """The file in which a scoring actor writes down who it is."""
        return folder_at(sequence.out) / "ray" / self.run_logs.name / f"scoring-{sequence.id}-{tasks_seen}.json"

    def _collect(self) -> None:
        for ended in self.pool.poll():
            sequence, tasks_seen = ended.job.sequence, ended.job.tasks_seen
            if ended.error is None:
                from orchestrator.evaluation.columns import note_columns

                note_columns(sequence, tasks_seen, Store(folder_at(sequence.out)))
            else:
                self._note_failure(sequence, tasks_seen, ended.error)

    def _note_failure(self, sequence: SequencePlan, tasks_seen: int, error: Exception) -> None:
        import ray

        what = what_is_scored(sequence, tasks_seen)
        log = logs.scoring_log(sequence.out, sequence.id, tasks_seen)
        process = introduced(self._introduction(sequence, tasks_seen))
        if process:
            copy_ray_logs(process, self.run_logs, f"scoring-{sequence.id}-after-{tasks_seen}")
        # the actor has written the traceback of its own error into its log, but not of its own death
        if isinstance(error, ray.exceptions.RayTaskError):
            reason = str(error.cause)
        else:
            reason = death("its process", process, error)
            logs.write_failure(log, f"{what}: {reason}", error)
        self.problems.append(f"{what} failed: {reason}; log: {log}")
        failure = events.ScoringFailed(
            tasks_seen=tasks_seen,
            reason=reason,
            traceback=str(error),
            method=sequence.method.label,
            log=str(log),
        )
        # said in the command's own lines in any case, also where it is the storage that fails
        with contextlib.suppress(OSError):
            Journal(journal_folder(sequence.out, sequence.id), "evaluate").append(failure)


def _stored_states(view: View) -> list[int]:
    """The states of a sequence that can be scored by now, each named by the tasks that it has seen."""
    states = []
    if view.start:
        states.append(0)
    for task_id, task in view.by_task.items():
        if task.checkpoint:
            states.append(task_id + 1)
    return states
