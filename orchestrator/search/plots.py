"""Pictures: a search's trials as parallel coordinates and over two parameters; a matrix over tasks as a heat map."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from orchestrator.search.trial_store import TrialStore
    from orchestrator.search.trials import MethodSearch, Trial, TrialResult


SHOWN = {"aa": "average accuracy (dev), %", "forgetting": "forgetting (dev), points"}


def draw(trial_store: TrialStore, method_searches: Sequence[MethodSearch], folder: Path) -> list[Path]:
    """Write the pictures of all trials that have a score; returns their files."""
    import matplotlib

    matplotlib.use("Agg")
    made = []
    for method_search in method_searches:
        ended = [(t, trial_store.ends[t.key]) for t in trial_store.of(method_search.label) if t.key in trial_store.ends]
        scored = [(t, e) for t, e in ended if e.metrics]
        if not scored:
            continue
        name = method_search.label.replace("/", "-")
        made.append(_parallel(method_search, scored, folder / f"parallel-{name}.png"))
        varied = [
            n for n in method_search.space if len({t.values[n] for t, _ in scored if _is_number(t.values[n])}) > 1
        ]
        for x, y in itertools.combinations(varied[:3], 2):
            made.append(_contour(method_search, scored, x, y, folder / f"contour-{name}-{x}-{y}.png"))
    return made


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parallel(method_search: MethodSearch, scored: Sequence[tuple[Trial, TrialResult]], file: Path) -> Path:
    """A line for each trial through its values to its metrics, coloured by average accuracy."""
    import matplotlib.pyplot as plt

    columns = [(name.split(".", 1)[1], [t.values[name] for t, _ in scored]) for name in method_search.space]
    columns += [(key, [e.metrics.get(key) or 0.0 for _, e in scored]) for key in SHOWN]
    scores = [e.metrics["aa"] or 0.0 for _, e in scored]
    figure, axes = plt.subplots(figsize=(1.5 + 1.9 * len(columns), 4.2), layout="constrained")
    heights = [_heights(axes, place, label, values) for place, (label, values) in enumerate(columns)]
    norm = plt.Normalize(min(scores), max(scores) + 1e-9)
    for i in sorted(range(len(scored)), key=lambda i: scores[i]):  # the best on top
        style = "-" if scored[i][1].status == "finished" else ":"
        axes.plot([h[i] for h in heights], style, color=plt.cm.viridis(norm(scores[i])), linewidth=2, alpha=0.9)
    axes.set(xlim=(-0.3, len(columns) - 0.5), ylim=(-0.08, 1.1))
    axes.axis("off")
    figure.colorbar(plt.cm.ScalarMappable(norm, "viridis"), ax=axes, label=SHOWN["aa"], shrink=0.8)
    axes.set_title(f"{method_search.label}: {len(scored)} trials (dotted: stopped early)", loc="left")
    figure.savefig(file, dpi=130)
    plt.close(figure)
    return file


def _heights(axes: Axes, place: int, label: str, values: Sequence[Any]) -> list[float]:
    """Draw one axis with its ticks; gives each trial's height on it. Numbers over more than a decade are spaced by their log."""
    import math

    distinct = sorted(set(values), key=lambda v: (not _is_number(v), v if _is_number(v) else 0, str(v)))
    numbers = all(_is_number(v) for v in distinct)
    log = numbers and distinct[0] > 0 and distinct[-1] / distinct[0] > 10
    raw = {v: (math.log(v) if log else float(v)) if numbers else float(i) for i, v in enumerate(distinct)}
    low, span = min(raw.values()), (max(raw.values()) - min(raw.values())) or 1.0
    height = {v: (r - low) / span if len(raw) > 1 else 0.5 for v, r in raw.items()}
    axes.axvline(place, 0.07, 0.92, color="0.6", linewidth=1)
    ticks = distinct if len(distinct) <= 8 else [distinct[0], distinct[len(distinct) // 2], distinct[-1]]
    for value in ticks:
        text = f"{value:.3g}" if _is_number(value) else str(value)
        behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
        axes.text(place - 0.04, height[value], text, ha="right", va="center", fontsize=8, bbox=behind, zorder=4)
    axes.text(place, 1.06, label, ha="center", fontweight="bold", fontsize=9)
    return [height[v] for v in values]


def _contour(
    method_search: MethodSearch, scored: Sequence[tuple[Trial, TrialResult]], x: str, y: str, file: Path
) -> Path:
    """Average accuracy and forgetting over two parameters; where the trials do not span an area, the points alone."""
    import matplotlib.pyplot as plt

    usable = [(t, e) for t, e in scored if _is_number(t.values[x]) and _is_number(t.values[y])]
    figure, panels = plt.subplots(1, len(SHOWN), figsize=(5.2 * len(SHOWN), 4.2), layout="constrained")
    for axes, (key, title) in zip(panels, SHOWN.items(), strict=True):
        points = [(t.values[x], t.values[y], e.metrics.get(key) or 0.0) for t, e in usable]
        _panel(axes, points, (x, y), title, "viridis" if key == "aa" else "viridis_r")
    figure.suptitle(f"{method_search.label}: {len(usable)} trials", x=0.01, ha="left")
    figure.savefig(file, dpi=130)
    plt.close(figure)
    return file


def _panel(
    axes: Axes, points: Sequence[tuple[float, float, float]], names: tuple[str, str], title: str, cmap: str
) -> None:
    import numpy as np
    from matplotlib.ticker import NullFormatter
    from matplotlib.tri import Triangulation

    xs, ys, zs = (np.array(column) for column in zip(*points, strict=True))
    axes.scatter(xs, ys, c=zs, cmap=cmap, edgecolor="black", s=70, zorder=3)
    flat = []
    for values, axis, set_scale in ((xs, axes.xaxis, axes.set_xscale), (ys, axes.yaxis, axes.set_yscale)):
        log = values.min() > 0 and values.max() / values.min() > 10
        if log:
            set_scale("log")
        if len(set(values)) <= 8:
            axis.set_ticks(sorted(set(values)), [f"{v:g}" for v in sorted(set(values))])
            axis.set_minor_formatter(NullFormatter())
        scaled = np.log(values) if log else values
        flat.append((scaled - scaled.min()) / ((scaled.max() - scaled.min()) or 1.0))
    with contextlib.suppress(ValueError, RuntimeError):  # fewer than three points, or all on a line: no surface
        surface = Triangulation(xs, ys, Triangulation(*flat).triangles)  # neighbours as the picture shows them
        axes.tricontourf(surface, zs, levels=8, cmap=cmap, alpha=0.55)
    for px, py, pz in points:
        axes.annotate(f"{pz:.0f}", (px, py), textcoords="offset points", xytext=(6, 5), fontsize=8)
    axes.use_sticky_edges = False  # a point at the rim is to be seen whole
    axes.margins(0.12)
    axes.tick_params(axis="x", rotation=45)
    axes.set(xlabel=names[0], ylabel=names[1], title=title)
    axes.get_figure().colorbar(axes.collections[0], ax=axes)  # type: ignore[union-attr]  # the axes have a figure
