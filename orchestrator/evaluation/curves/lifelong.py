"""Lifelong metrics: how a run keeps, transfers and learns, as seen from runs that learn each task alone.

The names and formulas are those of the suite of arXiv 2201.08278 and its released code, l2metrics. A learning curve is the
score on a task at points amid its own training: an array [P, 2] of (step, score). The expert of a task is the reference run
that trains it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.curves.stability import NAN, CurveMetric, Point
from orchestrator.evaluation.measure import Direction
from orchestrator.evaluation.metrics import Matrix

Curve = NDArray[np.float64]

_ALL = (
    CurveMetric("performance_maintenance", "PM", "higher", "mean change of a task's score in the states after its own"),
    CurveMetric("forward_transfer_contrast", "FT", "higher", "contrast of a task's score before its turn and at first"),
    CurveMetric(
        "backward_transfer_contrast", "BT", "higher", "contrast of an old task's score after and before a task"
    ),
    CurveMetric("relative_performance", "RP", "higher", "area under a task's learning curve over that of its expert"),
    CurveMetric("saturation", "sat.", "higher", "best score amid a task's own training over that of its expert"),
    CurveMetric("saturation_speed", "speed", "higher", "the expert's steps to its best score over the run's own"),
    CurveMetric("sample_efficiency", "SE", "higher", "sat. x speed, of each task"),
)
LIFELONG: dict[str, CurveMetric] = {metric.name: metric for metric in _ALL}


def contrast(later: float, earlier: float) -> float:
    """(x - y) / (x + y), from -1 to 1; 0 where both scores are 0, so that nothing changed."""
    if later == earlier == 0:
        return 0.0
    return (later - earlier) / (later + earlier)


def performance_maintenance(acc_TT: Matrix) -> float:
    """PM: the mean over tasks of mean_{s>j} (a[s, j] - a[j, j]); NaN for one task."""
    changes = []
    for task_id in range(len(acc_TT) - 1):
        changes.append(np.mean(acc_TT[task_id + 1 :, task_id]) - acc_TT[task_id, task_id])
    return _mean(changes)


def forward_transfer_contrast(accuracy_matrix: Matrix) -> float:
    """FT: mean_{j>1} contrast(a[j-1, j], a[0, j]), from the (T+1) x T matrix; NaN for one task."""
    contrasts = []
    for task_id in range(1, accuracy_matrix.shape[1]):
        # `task_id` tasks were seen right before the turn of task `task_id`
        contrasts.append(contrast(accuracy_matrix[task_id, task_id], accuracy_matrix[0, task_id]))
    return _mean(contrasts)


def backward_transfer_contrast(acc_TT: Matrix) -> float:
    """BT: the mean over pairs j < t of contrast(a[t, j], a[t-1, j]); NaN for one task."""
    contrasts = []
    for later in range(1, len(acc_TT)):
        for task_id in range(later):
            contrasts.append(contrast(acc_TT[later, task_id], acc_TT[later - 1, task_id]))
    return _mean(contrasts)


def area(curve: Curve, steps: float) -> float:
    """The area under a learning curve up to so many steps, with straight lines between its points."""
    inside = curve[curve[:, 0] < steps]
    end = (steps, np.interp(steps, curve[:, 0], curve[:, 1]))
    cut = np.vstack([inside, end])
    return float(np.trapezoid(cut[:, 1], cut[:, 0]))


def steps_to_saturation(curve: Curve, better: Direction) -> float:
    """The steps after which a curve first has its best score."""
    best = np.argmin if better == "lower" else np.argmax
    return float(curve[best(curve[:, 1]), 0])


def relative_performance(own: Curve, expert: Curve, better: Direction = "higher") -> float:
    """RP of one task: the ratio of the areas, over as many steps as both have; NaN where the divisor is 0."""
    steps = min(own[-1, 0], expert[-1, 0])
    return _ratio(area(own, steps), area(expert, steps), better)


def saturation(own: Curve, expert: Curve, better: Direction = "higher") -> float:
    """The ratio of the best scores of one task; NaN where the divisor is 0.

    Without the released code's moving average: it smooths single episodes, and a point here is a mean over examples.
    """
    best = np.min if better == "lower" else np.max
    return _ratio(float(best(own[:, 1])), float(best(expert[:, 1])), better)


def saturation_speed(own: Curve, expert: Curve, better: Direction = "higher") -> float:
    """The ratio of the steps to the best score of one task; NaN where either curve is best before its first step."""
    own_steps = steps_to_saturation(own, better)
    expert_steps = steps_to_saturation(expert, better)
    if own_steps == 0 or expert_steps == 0:
        return NAN
    return expert_steps / own_steps


def sample_efficiency(own: Curve, expert: Curve, better: Direction = "higher") -> float:
    """SE of one task: saturation x saturation speed."""
    return saturation(own, expert, better) * saturation_speed(own, expert, better)


CurveFormula = Callable[[Curve, Curve, Direction], float]
_OF_CURVES: dict[str, CurveFormula] = {
    "relative_performance": relative_performance,
    "saturation": saturation,
    "saturation_speed": saturation_speed,
    "sample_efficiency": sample_efficiency,
}


def learning_curve(points: Sequence[Point], task_id: int) -> Curve:
    """The learning curve of a task: its points amid its own training, [P, 2]; P is 0 where it has none."""
    own = []
    for point in sorted(points):
        if point.task_id == point.scored_id == task_id:
            own.append((point.step, point.score))
    return np.array(own, dtype=np.float64).reshape(-1, 2)


def lifelong(
    accuracy_matrix: Matrix,
    points: Sequence[Point] = (),
    expert_points: Sequence[Point] = (),
    better: Direction = "higher",
) -> Mapping[str, float]:
    """The metrics of LIFELONG, of a (T+1) x T accuracy matrix and of the points of a run and of its experts.

    Those of learning curves are means over the tasks that have a value; NaN where none has.
    """
    sign = -1.0 if better == "lower" else 1.0
    acc_TT = accuracy_matrix[1:]
    values = {
        # where a lower score is better, a change for the better is above 0 all the same
        "performance_maintenance": sign * performance_maintenance(acc_TT),
        "forward_transfer_contrast": sign * forward_transfer_contrast(accuracy_matrix),
        "backward_transfer_contrast": sign * backward_transfer_contrast(acc_TT),
    }
    for name, formula in _OF_CURVES.items():
        of_tasks = []
        for task_id in range(accuracy_matrix.shape[1]):
            own = learning_curve(points, task_id)
            expert = learning_curve(expert_points, task_id)
            if len(own) and len(expert):
                value = formula(own, expert, better)
                # NaN, which is not itself, says that there is no ratio
                if value == value:
                    of_tasks.append(value)
        values[name] = _mean(of_tasks)
    return values


def _ratio(own: float, expert: float, better: Direction) -> float:
    """Above 1 where the run is better than the expert."""
    if better == "lower":
        return _ratio(expert, own, "higher")
    if expert == 0:
        return NAN
    return own / expert


def _mean(values: Sequence[float]) -> float:
    if not values:
        return NAN
    return float(np.mean(values))
