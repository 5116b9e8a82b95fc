"""The stability gap: what happened to scores amid training, which the states after tasks do not show (arXiv 2205.13452).

A point is the score on a task after so many steps of the same or a later task. A window of W points is W of them in a row, on
one task. Where a lower score is better, a fall below means a rise, and the worst score is the highest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from orchestrator.evaluation.measure import Direction

NAN = float("nan")


class Point(NamedTuple):
    """The score on `scored_id` after `step` steps of `task_id`; step 0 is before the first."""

    task_id: int
    step: int
    scored_id: int
    score: float


@dataclass(frozen=True)
class CurveMetric:
    """A metric of what happened amid training: `name` in JSON, CSV files and MLflow, `title` and `meaning` on the screen.

    `change` says whether it is a difference or ratio, which keeps its direction where a lower score is better.
    """

    name: str
    title: str
    better: Direction
    meaning: str
    change: bool = False

    @property
    def heading(self) -> str:
        """The title with an arrow towards better values."""
        arrow = {"higher": "↑", "lower": "↓"}[self.better]
        return f"{self.title} {arrow}"


_ALL = (
    CurveMetric("min_acc", "min-ACC", "higher", "mean over earlier tasks of the worst score since each was learnt"),
    CurveMetric("wc_acc", "WC-ACC", "higher", "mean of the last task's score and the worst ones of those before"),
    CurveMetric("wf", "WF", "lower", "mean of the deepest fall of a score within a window of points", change=True),
    CurveMetric("wp", "WP", "higher", "mean of the steepest rise of a score within a window of points", change=True),
)
STABILITY: dict[str, CurveMetric] = {metric.name: metric for metric in _ALL}


def worst_scores(points: Iterable[Point], num_tasks: int) -> list[float]:
    """Of each task but the last the lowest score since it was learnt: after the first step of the next task, or later."""
    worst = [NAN] * (num_tasks - 1)
    for point in points:
        # before its first step the next task has not touched what was learnt
        if (point.task_id, point.step) > (point.scored_id + 1, 0) and point.scored_id < num_tasks - 1:
            # fmin: the first score is compared with NaN
            worst[point.scored_id] = float(np.fmin(worst[point.scored_id], point.score))
    return worst


def deepest_fall(scores: Iterable[float], window: int) -> float:
    """The largest A_i - A_j with i < j in any window of scores in a row; 0 where none falls."""
    deepest = 0.0
    recent: deque[float] = deque(maxlen=window)
    for score in scores:
        recent.append(score)
        # falls that end earlier were seen when they ended
        deepest = max(deepest, max(recent) - score)
    return deepest


def curves(points: Iterable[Point], num_tasks: int) -> list[list[float]]:
    """The scores on each task in the order of training."""
    scores: list[list[float]] = [[] for _ in range(num_tasks)]
    for point in sorted(points):
        scores[point.scored_id].append(point.score)
    return scores


def stability(
    points: Sequence[Point], num_tasks: int, window: int, better: Direction = "higher"
) -> Mapping[str, float]:
    """The metrics of STABILITY over the points of the first `num_tasks` tasks; NaN where a task has none.

    min-ACC = mean_{j<t} minACC_j and WC-ACC = (score of task t + sum_{j<t} minACC_j) / t with t the last task; WF and WP are the
    mean over all tasks of the largest fall and rise. As the released code, but for two things: where few steps have points, a
    window of them spans more steps; and there is a point before the first step of each task.
    """
    sign = 1.0
    if better == "lower":
        sign = -1.0
    signed = []
    for point in points:
        if point.task_id < num_tasks:
            signed.append(point._replace(score=sign * point.score))
    # a state may have been found that was trained without points: what happened meanwhile is then not known
    if {point.task_id for point in signed} != set(range(num_tasks)):
        return dict.fromkeys(STABILITY, NAN)
    worst = worst_scores(signed, num_tasks)
    by_task = curves(signed, num_tasks)
    falls = []
    rises = []
    for scores in by_task:
        falls.append(deepest_fall(scores, window))
        rises.append(deepest_fall(np.negative(scores), window))
    return {
        # one task has no earlier ones
        "min_acc": sign * float(np.mean(worst)) if worst else NAN,
        "wc_acc": sign * float(np.mean([*worst, by_task[-1][-1]])),
        "wf": float(np.mean(falls)),
        "wp": float(np.mean(rises)),
    }
