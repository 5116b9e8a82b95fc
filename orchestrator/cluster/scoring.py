"""Scores that are computed beside training, by Ray tasks of their own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import logs
from orchestrator.cluster.ray_logs import copy_ray_logs, death, introduce, introduced
from orchestrator.errors import WorkerFailed
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store import events
from orchestrator.store.checkpoints import Store
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.store.view import View

logger = logging.getLogger(__name__)


def _score_state(values: dict[str, Any], tasks_seen: int, gpu: bool, introduction: str) -> None:
    """Compute the scores that the state after `tasks_seen` tasks lacks: a Ray task."""
    import torch

    from orchestrator.training.parallel import Parallel
    from orchestrator.training.sequence import score_state

    sequence = SequencePlan.model_validate(values)
    device = torch.device("cuda" if gpu else "cpu")
    what = what_is_scored(sequence, tasks_seen)
    log = logs.scoring_log(sequence.out, sequence.id, tasks_seen)
    with logs.to_file(log):
        process = introduce(Path(introduction))
        logger.info("%s, by %s", what, process)
        try:
            score_state(sequence, tasks_seen, Parallel.current(device))
        except Exception as error:
            logs.write_failure(log, what, error)
            # a user's own class of error need not exist in the process that receives it
            raise WorkerFailed(logs.reason(error)) from error


def what_is_scored(sequence: SequencePlan, tasks_seen: int) -> str:
    """The state that a scoring task reads, in words."""
    if tasks_seen == 0:
        state = "the initial model"
    else:
        state = f"the state after task {sequence.tasks[tasks_seen - 1]!r}"
    return f"scoring {state} of {sequence.id}"


@dataclass
class AsyncScoring:
    """The states that are being scored beside training, and those that were taken up before."""

    gpus: float
    run_logs: Path
    running: dict[Any, tuple[SequencePlan, int]] = field(default_factory=dict)
    taken: set[tuple[str, int]] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def tick(self, sequences: Sequence[SequencePlan], views: Sequence[View]) -> None:
        """Start what can be scored, and note what has been."""
        for sequence, view in zip(sequences, views, strict=True):
            for tasks_seen in _stored_states(view):
                if (sequence.id, tasks_seen) not in self.taken and not view.has_all_scores(tasks_seen):
                    # also for what fails: it would fail again at each tick; `orchestrator evaluate` tries it anew
                    self.taken.add((sequence.id, tasks_seen))
                    self._start(sequence, tasks_seen)
        self._collect()

    def _start(self, sequence: SequencePlan, tasks_seen: int) -> None:
        import ray

        # a machine may be taken away under a task; an error of its own Ray does not try again
        task = ray.remote(_score_state).options(num_cpus=1, num_gpus=self.gpus, max_retries=3)
        values = sequence.model_dump(mode="json")
        introduction = str(self._introduction(sequence, tasks_seen))
        reference = task.remote(values, tasks_seen, self.gpus > 0, introduction)
        # kept until it is collected: Ray drops a result that nobody refers to
        self.running[reference] = (sequence, tasks_seen)
        logger.info("started %s", what_is_scored(sequence, tasks_seen))

    def _introduction(self, sequence: SequencePlan, tasks_seen: int) -> Path:
        """The file in which a scoring task writes down who it is."""
        return Path(sequence.out) / "ray" / self.run_logs.name / f"scoring-{sequence.id}-{tasks_seen}.json"

    def _collect(self) -> None:
        import ray

        if not self.running:
            return
        ended, _ = ray.wait(list(self.running), num_returns=len(self.running), timeout=0)
        for reference in ended:
            sequence, tasks_seen = self.running.pop(reference)
            try:
                ray.get(reference)
            except ray.exceptions.RayError as error:
                self._note_failure(sequence, tasks_seen, error)
            else:
                _note_scores(sequence, tasks_seen)

    def _note_failure(self, sequence: SequencePlan, tasks_seen: int, error: Exception) -> None:
        import ray

        what = what_is_scored(sequence, tasks_seen)
        log = logs.scoring_log(sequence.out, sequence.id, tasks_seen)
        process = introduced(self._introduction(sequence, tasks_seen))
        if process:
            copy_ray_logs(process, self.run_logs, f"scoring-{sequence.id}-after-{tasks_seen}")
        # the task has written the traceback of its own error into its log, but not of its own death
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


def _note_scores(sequence: SequencePlan, tasks_seen: int) -> None:
    from orchestrator.evaluation.scores import score_events

    journal = Journal(journal_folder(sequence.out, sequence.id), "evaluate")
    for event in score_events(sequence, tasks_seen, Store(Path(sequence.out))):
        journal.append(event)
