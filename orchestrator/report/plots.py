"""Plots of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

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
