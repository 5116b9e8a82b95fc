"""Pictures that are logged to the runs of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.evaluation.view_metrics import points_of, unit_of
from orchestrator.report.plots import heat_map, score_curves
from orchestrator.store.view import View


def log_matrix(
    client: Any, run_id: str, name: str, matrix: Sequence[Sequence[float]], tasks: Sequence[str], tasks_seen: int
) -> None:
    """A matrix that a method says of the tasks so far, as numbers and as a heat map."""
    file = f"diagnostics/{name.replace('/', '-')}-after-{tasks_seen}"
    client.log_dict(run_id, {"tasks": list(tasks), name: matrix}, f"{file}.json")
    client.log_figure(run_id, heat_map(matrix, tasks, name), f"{file}.png")


def log_curves(client: Any, run_id: str, view: View) -> None:
    """The scores amid training so far, in place of the picture after the task before."""
    figure = score_curves(points_of(view), view.tasks, unit_of(view), view.id)
    client.log_figure(run_id, figure, "curves/scores-amid-training.png")
