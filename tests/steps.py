"""The steps that a sequence's journal tells of: a view keeps their numbers alone."""

from __future__ import annotations

from pathlib import Path

from orchestrator.store.events import Step
from orchestrator.store.journal import Tail, journal_folder


def steps_of(out: str | Path, sequence_id: str, task_id: int | None = None) -> list[Step]:
    """The steps of a task, or of all, in the order in which they were recorded, each once."""
    steps: dict[tuple[int, int], Step] = {}
    for event in Tail(journal_folder(out, sequence_id)).new_events():
        if isinstance(event, Step) and task_id in (None, event.task_id):
            steps.setdefault((event.task_id, event.step), event)
    return list(steps.values())


def losses_of(out: str | Path, sequence_id: str, task_id: int | None = None) -> list[float]:
    """The loss at each of those steps."""
    return [step.loss for step in steps_of(out, sequence_id, task_id)]
