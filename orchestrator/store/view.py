"""TODO orchestrator.store.view"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from orchestrator.evaluation.metrics import Matrix
from orchestrator.store.journal import Event, Tail, journal_folder


@dataclass
class TaskView:
    """What the journal says of one task."""

    started: int | None = None
    steps: dict[int, Event] = field(default_factory=dict)
    total_steps: int = 0
    checkpoint: Event | None = None


@dataclass
class View:
    """A sequence as its journal tells it. Facts count once: of two events on one fact the first stands."""

    id: str
    tasks: tuple[str, ...] = ()
    start: Event | None = None
    by_task: dict[int, TaskView] = field(default_factory=dict)
    scores: dict[tuple[int, int], Event] = field(default_factory=dict)
    status: str = "waiting"
    failure: str = ""
    starts: list[int] = field(default_factory=list)
    failed_at: int = 0
    finished_at: int = 0

    def add(self, event: Event) -> bool:
        """Take in one event; False if it says nothing new."""
        handler = getattr(self, f"_{event['event']}", None)
        return bool(handler(event)) if handler else True

    def _sequence_started(self, event: Event) -> bool:
        self.status, self.failure = "running", ""
        self.tasks, self.start = tuple(event["tasks"]), self.start or event
        self.starts.append(event.get("time", 0))
        return True

    def _task(self, event: Event) -> TaskView:
        return self.by_task.setdefault(event["task_id"], TaskView())

    def _task_started(self, event: Event) -> bool:
        task = self._task(event)
        new = task.started is None
        task.started, task.total_steps = task.started or event["time"], event["steps"]
        return new

    def _step(self, event: Event) -> bool:
        steps = self._task(event).steps
        new = event["step"] not in steps
        steps.setdefault(event["step"], event)
        return new

    def _checkpoint(self, event: Event) -> bool:
        task = self._task(event)
        new = task.checkpoint is None
        task.checkpoint = task.checkpoint or event
        return new

    def _score(self, event: Event) -> bool:
        place = (event["tasks_seen"], event["task_id"])
        new = place not in self.scores
        self.scores.setdefault(place, event)
        return new

    def _sequence_finished(self, event: Event) -> bool:
        changed, self.status = self.status != "finished", "finished"
        self.finished_at = event["time"]
        return changed

    def _sequence_failed(self, event: Event) -> bool:
        changed = self.status != "failed"
        self.status, self.failure, self.failed_at = "failed", event["reason"], event["time"]
        return changed

    def matrix(self, value: str = "score") -> Matrix:
        """[T+1, T] in %, row 0 before training; NaN where there is no cell (or no such value) yet."""
        full = np.full((len(self.tasks) + 1, len(self.tasks)), np.nan)
        for (row, column), cell in self.scores.items():
            if cell.get(value) is not None:
                full[row, column] = cell[value]
        return full

    @property
    def seconds(self) -> float:
        """Training time of all its tasks, also of those that another sequence trained."""
        return float(sum(task.checkpoint["seconds"] for task in self.by_task.values() if task.checkpoint))

    def usage(self, unit: str) -> float | None:
        """Steps, tokens or flops of all its tasks, as `seconds`; None where a checkpoint is older than these numbers."""
        found = [task.checkpoint.get("usage", {}).get(unit) for task in self.by_task.values() if task.checkpoint]
        return sum(found) if found and None not in found else None

    def has_all_scores(self, row: int) -> bool:
        """Whether every task has its cell in a row."""
        return all((row, column) in self.scores for column in range(len(self.tasks)))

    def test_sizes(self) -> list[int]:
        """Test examples of each task, from the cells."""
        return [
            next((c["n"] for (_, j), c in self.scores.items() if j == column), 0) for column in range(len(self.tasks))
        ]


def read_view(out: str | Path, sequence_id: str) -> View:
    """The whole journal of a sequence."""
    return fold(sequence_id, Tail(journal_folder(out, sequence_id)).new_events())


def fold(sequence_id: str, events: Iterable[Event]) -> View:
    """A view from events."""
    view = View(sequence_id)
    for event in events:
        view.add(event)
    return view
