"""What results say of scores amid training, and of knowledge that was kept, updated and acquired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from operator import attrgetter, itemgetter
from typing import Any

from orchestrator.evaluation.curves.knowledge import fuar
from orchestrator.evaluation.curves.stability import STABILITY, Point
from orchestrator.evaluation.metrics import Matrix
from orchestrator.evaluation.scorers import measure_of
from orchestrator.evaluation.view_metrics import stability_of
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.report.numbers import plain_number
from orchestrator.store.view import View

Result = dict[str, Any]  # of one sequence, see `orchestrator.report.results.sequence_result`

# What a point says, in this order
POINT_FIELDS = ("task_id", "step", "scored_id", "score", "n", "seconds")


def point_results(sequence: SequencePlan, view: View) -> Result:
    """The points of a sequence, their metrics, and the seconds that the looks took; nothing where none were asked for.

    The metrics are None until all tasks are trained, and where a task's state was found that was trained without points.
    """
    during = sequence.evaluation.during
    if during is None:
        return {}
    points = []
    seconds = 0.0
    for event in sorted(view.points.values(), key=lambda point: (point.task_id, point.step, point.scored_id)):
        points.append([*attrgetter(*POINT_FIELDS)(event)])
        seconds += event.seconds
    # a mean over what is there by now would pass for the metric of the whole sequence
    values: Mapping[str, float] = {}
    if all(map(partial(_is_trained, view), range(len(sequence.tasks)))):
        values = stability_of(view, sequence.method.run_kind, during=during)
    result: Result = {"points": points, "window": during.window, "seconds_of_looks": round(seconds, 2)}
    for name in STABILITY:
        result[name] = plain_number(values.get(name))
    return result


def _is_trained(view: View, task_id: int) -> bool:
    task = view.by_task.get(task_id)
    return task is not None and task.checkpoint is not None


def merged_points(parts: Sequence[Result]) -> Result:
    """The points of experts, of which each trains one task, as those of one run of all tasks; nothing where they have none."""
    if "points" not in parts[0]:
        return {}
    points = []
    for task_id, part in enumerate(parts):
        for _, step, _, *others in part["points"]:
            points.append([task_id, step, task_id, *others])
    seconds = sum(map(itemgetter("seconds_of_looks"), parts))
    return {"points": points, "seconds_of_looks": round(seconds, 2), **dict.fromkeys(STABILITY)}


def points_in(result: Mapping[str, Any]) -> list[Point]:
    """The points of a result."""
    points = []
    for task_id, step, scored_id, score, *_ in result.get("points", ()):
        points.append(Point(task_id, step, scored_id, score))
    return points


def knowledge_result(sequence: SequencePlan, matrix: Matrix, is_scored: bool) -> Result:
    """FUAR under its name, or "no gain"; None until all is scored; nothing where the stream does not say what is to be kept."""
    sets = sequence.stream.fuar
    if sets is None or not sequence.method.run_kind.learns_a_sequence:
        return {}
    measure = measure_of(sequence.scorers)
    if not is_scored or measure is None:
        return {"fuar": None}
    number_of = sequence.tasks.index
    forgotten = list(map(number_of, sets.forgotten))
    updated = list(map(number_of, sets.updated))
    acquired = list(map(number_of, sets.acquired))
    value = fuar(matrix, forgotten, updated, acquired, measure.better)
    if isinstance(value, float):
        return {"fuar": plain_number(value)}
    return {"fuar": value}
