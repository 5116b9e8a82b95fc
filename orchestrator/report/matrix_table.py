"""An accuracy matrix as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from orchestrator.evaluation.measure import Measure
from orchestrator.evaluation.scorers import SCORERS, measure_of


def matrix_table(sequence: dict[str, Any]) -> Table:
    """The accuracy matrix of one result, of shape (T+1) x T: the initial model, then the state after each task."""
    measures = [SCORERS[name].measure for name in sequence["scorers"]]
    common = measure_of(sequence["scorers"])
    unit = f" ({common.unit})" if common else ""
    title = f"{sequence['method']}, seed {sequence['seed']}: score{unit} on each task after each task"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("after")
    for task, measure in zip(sequence["tasks"], measures, strict=True):
        heading = task if common else f"{task} ({measure.unit})"
        table.add_column(heading, justify="right")
    states = ["–", *sequence["tasks"]]
    for tasks_seen, (state, scores) in enumerate(zip(states, sequence["accuracy_matrix"], strict=True)):
        table.add_row(state, *_cells(scores, measures, last_trained=tasks_seen - 1))
    return table


def _cells(scores: list[float | None], measures: Sequence[Measure], last_trained: int) -> list[Text]:
    """The scores of one state; that on the task it has just learnt stands out."""
    cells = []
    for task_id, score in enumerate(scores):
        cell = Text()
        if score is not None:
            cell = Text(f"{score:.{measures[task_id].digits}f}")
        if task_id == last_trained:
            cell.stylize("bold")
        cells.append(cell)
    return cells
