"""TODO orchestrator.cluster.scoring"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.store.view import View


def _score_state(values: dict[str, Any], row: int, gpu: bool) -> None:
    """A Ray task: fill the missing cells of one row."""
    import torch

    from orchestrator.training.parallel import Parallel
    from orchestrator.training.sequence import score_state

    score_state(SequencePlan.model_validate(values), row, Parallel.current(torch.device("cuda" if gpu else "cpu")))


@dataclass
class AsyncScoring:
    """The rows that are being scored aside, and those that are done."""

    gpus: float
    running: dict[Any, tuple[SequencePlan, int]] = field(default_factory=dict)
    taken: set[tuple[str, int]] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def tick(self, sequences: Sequence[SequencePlan], views: Sequence[View]) -> None:
        """Start what can be scored, and note what has been."""
        import ray

        for sequence, view in zip(sequences, views, strict=True):
            ready = [0] if view.start else []
            ready += [task_id + 1 for task_id, task in view.by_task.items() if task.checkpoint]
            for row in ready:
                if (sequence.id, row) not in self.taken and not view.has_all_scores(row):
                    self.taken.add((sequence.id, row))
                    task = ray.remote(_score_state).options(num_cpus=1, num_gpus=self.gpus, max_retries=3)
                    values = sequence.model_dump(mode="json")
                    self.running[task.remote(values, row, self.gpus > 0)] = (sequence, row)
        done, _ = ray.wait(list(self.running), num_returns=len(self.running), timeout=0) if self.running else ([], [])
        for reference in done:
            self._note(reference, *self.running.pop(reference))

    def _note(self, reference: Any, sequence: SequencePlan, row: int) -> None:
        import ray

        from orchestrator.evaluation.scores import score_events

        try:
            ray.get(reference)
        except ray.exceptions.RayError as error:
            self.problems.append(f"{sequence.id}, after task {row}: {str(error).strip().splitlines()[-1]}")
            return
        journal = Journal(journal_folder(sequence.out, sequence.id), "evaluate")
        for event in score_events(sequence, row, Store(Path(sequence.out))):
            journal.append(event)
