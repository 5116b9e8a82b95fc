"""Plots of matrices, and of scores amid training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.evaluation.curves.stability import Point

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Below this value the colour map is dark, so that its number must be light
DARK_BELOW = 0.6


def heat_map(matrix_TT: Sequence[Sequence[float]], tasks: Sequence[str], title: str) -> Figure:
    """A T x T matrix of tasks against tasks, of values from 0 to 1, each shown in its field."""
    from matplotlib.figure import Figure

    size = 1.8 + 0.7 * len(tasks)
    # not through pyplot, whose global state would not bear that MLflow's thread draws it
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.subplots()
    # the same scale in every plot: two of them are compared by their colours
    image = axes.imshow(matrix_TT, cmap="viridis", vmin=0, vmax=1)
    axes.set_xticks(range(len(tasks)), tasks, rotation=45, ha="right")
    axes.set_yticks(range(len(tasks)), tasks)
    for i, values in enumerate(matrix_TT):
        for j, value in enumerate(values):
            colour = "white" if value < DARK_BELOW else "black"
            # x counts columns, y counts down
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_title(title, loc="left")
    figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


def score_curves(points: Sequence[Point], tasks: Sequence[str], unit: str, title: str) -> Figure:
    """The score on each task over the steps of all tasks, a line a task; a dashed line is a switch of tasks."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    begins = first_steps(points, len(tasks))
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    colours = colormaps["tab20" if len(tasks) > 10 else "tab10"]
    for task_id, task in enumerate(tasks):
        steps = []
        scores = []
        for point in sorted(points):
            if point.scored_id == task_id:
                steps.append(begins[point.task_id] + point.step)
                scores.append(point.score)
        # without points yet a task has no line, and would only stand in the legend
        if steps:
            axes.plot(steps, scores, marker=".", markersize=4, linewidth=1.2, color=colours(task_id), label=task)
    for begin in begins[1:-1]:
        axes.axvline(begin, linestyle="--", linewidth=0.8, color="0.6")
    axes.set_xlabel("optimizer steps over all tasks")
    axes.set_ylabel(f"score ({unit})")
    axes.set_title(title, loc="left")
    # beside the lines, not upon them
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    return figure


def first_steps(points: Sequence[Point], num_tasks: int) -> list[int]:
    """The step over all tasks at which each begins, and last the one at which all end; the last point is a task's last step."""
    lengths = [0] * num_tasks
    for point in points:
        lengths[point.task_id] = max(lengths[point.task_id], point.step)
    begins = [0]
    for length in lengths:
        begins.append(begins[-1] + length)
    return begins
