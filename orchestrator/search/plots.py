"""A search's trials as plots: parallel coordinates over all parameters, and contours over pairs of them."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.measure import PERCENT, Measure
from orchestrator.evaluation.metrics import METRICS
from orchestrator.search.trial_store import TrialStore

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What is reached, and what it costs in earlier tasks.
SHOWN = ("aa", "forgetting")

# Numbers that span more than this are spaced by their logarithm.
LOG_ABOVE_RATIO = 10

# An axis with more distinct values than this has a tick at its ends and its middle alone.
MAX_TICKS = 8

# Pairs of the first so many parameters: the number of plots grows with its square.
MAX_CONTOUR_PARAMETERS = 3


@dataclass(frozen=True)
class ScoredTrial:
    """A trial's values and its metrics, in the measure of its scores; stopped trials have the metrics they were stopped with."""

    values: dict[str, Any]
    metrics: dict[str, float | None]
    stopped: bool
    measure: Measure = PERCENT

    def metric(self, name: str) -> float:
        """A metric to draw; 0 where it is undefined, as forgetting is after one task."""
        return self.metrics.get(name) or 0.0


def draw(trial_store: TrialStore, folder: Path) -> list[Path]:
    """Draw the plots of all trials that have a score; returns their files."""
    import matplotlib

    # Without a display, which a cluster's machine has not.
    matplotlib.use("Agg")
    files = []
    for method_search in trial_store.method_searches:
        label = method_search.label
        trials = _scored_trials(trial_store, label)
        if not trials:
            continue
        file_label = label.replace("/", "-")
        parameters = list(method_search.space)
        files.append(_draw_parallel(label, parameters, trials, folder / f"parallel-{file_label}.png"))
        varied = _varied_parameters(parameters, trials)
        for x, y in itertools.combinations(varied[:MAX_CONTOUR_PARAMETERS], 2):
            files.append(_draw_contours(label, x, y, trials, folder / f"contour-{file_label}-{x}-{y}.png"))
    return files


def _scored_trials(trial_store: TrialStore, label: str) -> list[ScoredTrial]:
    trials = []
    for trial, result in trial_store.ended_trials(label):
        # One that failed has none.
        if result.metrics:
            trials.append(ScoredTrial(trial.values, result.metrics, result.status == "stopped", trial.measure))
    return trials


def _varied_parameters(parameters: Sequence[str], trials: Sequence[ScoredTrial]) -> list[str]:
    """Parameters of which the trials have two or more numbers."""
    varied = []
    for name in parameters:
        numbers = filter(_is_number, _values_of(trials, name))
        if len(set(numbers)) > 1:
            varied.append(name)
    return varied


def _values_of(trials: Sequence[ScoredTrial], parameter: str) -> list[Any]:
    return [trial.values[parameter] for trial in trials]


def _metrics_of(trials: Sequence[ScoredTrial], metric: str) -> list[float]:
    return [trial.metric(metric) for trial in trials]


def _title(name: str, measure: Measure) -> str:
    """A metric of the dev split as a plot names it, with its unit."""
    metric = METRICS[name]
    return f"{metric.long_title} (dev), {metric.unit(measure)}"


def _colours(name: str, measure: Measure) -> str:
    """The colours of a metric, of which the bright ones are good."""
    if METRICS[name].better(measure) == "higher":
        return "viridis"
    return "viridis_r"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _draw_parallel(label: str, parameters: Sequence[str], trials: Sequence[ScoredTrial], file: Path) -> Path:
    """A line for each trial through its values to its metrics, coloured by average accuracy."""
    import matplotlib.pyplot as plt

    columns: dict[str, list[Any]] = {}
    for name in parameters:
        setting = name.split(".", 1)[1]
        columns[setting] = _values_of(trials, name)
    for name in SHOWN:
        columns[name] = _metrics_of(trials, name)
    figure, axes = plt.subplots(figsize=(1.5 + 1.9 * len(columns), 4.2), layout="constrained")
    heights_by_column = []
    for column_index, (title, values) in enumerate(columns.items()):
        heights_by_column.append(_draw_axis(axes, column_index, title, values))
    scores = _metrics_of(trials, "aa")
    # Above the highest score by a little: a single score would span nothing.
    norm = plt.Normalize(min(scores), max(scores) + 1e-9)
    # The worst first, so that the best line lies on top.
    lines = list(zip(*heights_by_column, strict=True))
    measure = trials[0].measure
    colours = plt.get_cmap(_colours("aa", measure))
    for trial_index in sorted(range(len(trials)), key=scores.__getitem__, reverse=measure.better == "lower"):
        style = ":" if trials[trial_index].stopped else "-"
        axes.plot(lines[trial_index], style, color=colours(norm(scores[trial_index])), linewidth=2, alpha=0.9)
    axes.set(xlim=(-0.3, len(columns) - 0.5), ylim=(-0.08, 1.1))
    axes.axis("off")
    figure.colorbar(plt.cm.ScalarMappable(norm, colours), ax=axes, label=_title("aa", measure), shrink=0.8)
    axes.set_title(f"{label}: {len(trials)} trials (dotted: stopped early)", loc="left")
    with file.open("wb") as stream:
        figure.savefig(stream, dpi=130)
    plt.close(figure)
    return file


def _draw_axis(axes: Axes, column_index: int, title: str, values: Sequence[Any]) -> list[float]:
    """Draw one axis with its ticks; gives each trial's height on it."""
    heights = axis_heights(values)
    distinct = list(heights)
    ticks = distinct
    if len(distinct) > MAX_TICKS:
        ticks = [distinct[0], distinct[len(distinct) // 2], distinct[-1]]
    axes.axvline(column_index, 0.07, 0.92, color="0.6", linewidth=1)
    # Lines run behind the ticks, which stay readable on a white ground.
    ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
    for value in ticks:
        text = f"{value:.3g}" if _is_number(value) else str(value)
        axes.text(column_index - 0.04, heights[value], text, ha="right", va="center", fontsize=8, bbox=ground, zorder=4)
    axes.text(column_index, 1.06, title, ha="center", fontweight="bold", fontsize=9)
    return list(map(heights.__getitem__, values))


def axis_heights(values: Sequence[Any]) -> dict[Any, float]:
    """The height (0 to 1) of each distinct value on its axis, from the lowest up.

    Numbers over more than a decade are spaced by their logarithm, other values evenly; a single value is in the middle.
    """
    distinct = sorted(set(values), key=_axis_order)
    raw: dict[Any, float] = {}
    if not all(map(_is_number, distinct)):
        for index, value in enumerate(distinct):
            raw[value] = float(index)
    elif distinct[0] > 0 and distinct[-1] / distinct[0] > LOG_ABOVE_RATIO:
        for value in distinct:
            raw[value] = math.log(value)
    else:
        for value in distinct:
            raw[value] = float(value)
    if len(raw) == 1:
        return dict.fromkeys(raw, 0.5)
    low = min(raw.values())
    # Equal numbers of two types are one key, but two words may still share a height.
    span = (max(raw.values()) - low) or 1.0
    heights = {}
    for value, position in raw.items():
        heights[value] = (position - low) / span
    return heights


def _axis_order(value: Any) -> tuple[bool, float, str]:
    """Numbers by size, before everything else by its text."""
    if _is_number(value):
        return (False, value, str(value))
    return (True, 0.0, str(value))


def _draw_contours(label: str, x: str, y: str, trials: Sequence[ScoredTrial], file: Path) -> Path:
    """Average accuracy and forgetting over two parameters; where the trials do not span an area, the points alone."""
    import matplotlib.pyplot as plt

    usable = []
    for trial in trials:
        if _is_number(trial.values[x]) and _is_number(trial.values[y]):
            usable.append(trial)
    x_values = np.array(_values_of(usable, x))
    y_values = np.array(_values_of(usable, y))
    figure, panels = plt.subplots(1, len(SHOWN), figsize=(5.2 * len(SHOWN), 4.2), layout="constrained")
    for axes, metric in zip(panels, SHOWN, strict=True):
        heights = np.array(_metrics_of(usable, metric))
        # A plot is drawn of two trials or more.
        measure = usable[0].measure
        _draw_panel(axes, x_values, y_values, heights, _colours(metric, measure))
        axes.set(xlabel=x, ylabel=y, title=_title(metric, measure))
    figure.suptitle(f"{label}: {len(usable)} trials", x=0.01, ha="left")
    with file.open("wb") as stream:
        figure.savefig(stream, dpi=130)
    plt.close(figure)
    return file


def _draw_panel(
    axes: Axes, x_values: NDArray[Any], y_values: NDArray[Any], heights: NDArray[np.float64], colours: str
) -> None:
    from matplotlib.tri import Triangulation

    points = axes.scatter(x_values, y_values, c=heights, cmap=colours, edgecolor="black", s=70, zorder=3)
    x_positions = _scale_axis(axes, "x", x_values)
    y_positions = _scale_axis(axes, "y", y_values)
    with contextlib.suppress(ValueError, RuntimeError):  # fewer than three points, or all on a line: no surface
        # Neighbours are those of the plot, in which an axis may be logarithmic.
        triangles = Triangulation(x_positions, y_positions).triangles
        surface = Triangulation(x_values, y_values, triangles)
        axes.tricontourf(surface, heights, levels=8, cmap=colours, alpha=0.55)
    for x, y, height in zip(x_values, y_values, heights, strict=True):
        axes.annotate(f"{height:.0f}", (x, y), textcoords="offset points", xytext=(6, 5), fontsize=8)
    axes.use_sticky_edges = False  # a point at the rim is to be seen whole
    axes.margins(0.12)
    axes.tick_params(axis="x", rotation=45)
    axes.get_figure().colorbar(points, ax=axes)  # type: ignore[union-attr]  # the axes have a figure


def _scale_axis(axes: Axes, name: str, values: NDArray[Any]) -> NDArray[np.float64]:
    """Set an axis's scale and ticks; gives where each value lies on it, from 0 to 1."""
    from matplotlib.ticker import NullFormatter

    positions = values
    if values.min() > 0 and values.max() / values.min() > LOG_ABOVE_RATIO:
        axes.set(**{f"{name}scale": "log"})
        positions = np.log(values)
    distinct = sorted(set(values))
    if len(distinct) <= MAX_TICKS:
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_ticks(distinct, list(map("{:g}".format, distinct)))
        axis.set_minor_formatter(NullFormatter())
    scaled: NDArray[np.float64] = (positions - positions.min()) / ((positions.max() - positions.min()) or 1.0)
    return scaled
