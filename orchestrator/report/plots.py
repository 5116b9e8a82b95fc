"""TODO orchestrator.report.plots"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def heat_map(matrix_TT: Sequence[Sequence[float]], tasks: Sequence[str], title: str) -> Figure:
    """A matrix of tasks against tasks, each cell with its value."""
    from matplotlib.figure import Figure

    size = 1.8 + 0.7 * len(tasks)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")  # no global state: MLflow's thread draws it
    axes = figure.subplots()
    drawn = axes.imshow(matrix_TT, cmap="viridis", vmin=0, vmax=1)
    axes.set_xticks(range(len(tasks)), tasks, rotation=45, ha="right")
    axes.set_yticks(range(len(tasks)), tasks)
    for i, row in enumerate(matrix_TT):
        for j, value in enumerate(row):
            axes.text(
                j, i, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.6 else "black", fontsize=8
            )
    axes.set_title(title, loc="left")
    figure.colorbar(drawn, ax=axes, shrink=0.8)
    return figure
