"""Metrics of what a sequence's journal says."""

from __future__ import annotations

from collections.abc import Mapping

from methods.reference_runs import RunKind
from orchestrator.config.running import DuringConfig
from orchestrator.evaluation import metrics
from orchestrator.evaluation.curves.stability import Point, stability
from orchestrator.evaluation.scorers import SCORERS, measure_of, tasks_by_scorer
from orchestrator.store.view import View
from streams import DEFAULT_SCORER


def scorers_of(view: View) -> tuple[str, ...]:
    """The scorer of each task by name, as the plan has it that the sequence was started with."""
    named: tuple[str, ...] = ()
    if view.start is not None:
        named = tuple(view.start.sequence.get("scorers", ()))
    # journals of before there were several say nothing
    return named or (DEFAULT_SCORER,) * len(view.tasks)


def unit_of(view: View) -> str:
    """The unit of a sequence's scores; where tasks have several, that it is each scorer's own."""
    measure = measure_of(scorers_of(view))
    if measure is None:
        return "in the unit of its scorer"
    return measure.unit


def summary_of(
    view: View,
    kind: RunKind,
    tasks_seen: int | None = None,
    scorer: str | None = None,
    reference_T: metrics.Matrix | None = None,
) -> dict[str, float]:
    """The metrics of a sequence after so many tasks (None: all); with a scorer's name, over that scorer's tasks alone."""
    measure = measure_of(scorers_of(view))
    tasks = None
    if scorer is not None:
        measure = SCORERS[scorer].measure
        tasks = tasks_by_scorer(scorers_of(view))[scorer]
    return metrics.summary(
        view.matrix(), view.test_sizes(), view.matrix("score_options"), tasks_seen, kind, reference_T, measure, tasks
    )


def points_of(view: View) -> list[Point]:
    """The scores amid training."""
    points = []
    for event in view.points.values():
        points.append(Point(event.task_id, event.step, event.scored_id, event.score))
    return points


def stability_of(
    view: View, kind: RunKind, tasks_seen: int | None = None, during: DuringConfig | None = None
) -> Mapping[str, float]:
    """The metrics of what happened amid training, after so many tasks (None: all); none where they mean nothing.

    `during` is what is asked for now; by default, what was when the sequence was first started.
    """
    measure = measure_of(scorers_of(view))
    during = during or _during_of(view)
    # of falls in different units there is no mean
    if during is None or measure is None or not kind.learns_a_sequence:
        return {}
    return stability(points_of(view), tasks_seen or len(view.tasks), during.window, measure.better)


def _during_of(view: View) -> DuringConfig | None:
    """What was asked for of scores amid training when the sequence was started."""
    asked = None
    if view.start is not None:
        asked = view.start.sequence.get("evaluation", {}).get("during")
    if asked is None:
        return None
    return DuringConfig.model_validate(asked)


def summaries_of(
    view: View, kind: RunKind, tasks_seen: int | None = None, reference_T: metrics.Matrix | None = None
) -> dict[str, float]:
    """The metrics over all tasks, and where these have several scorers over those of each, under names as `aa/rouge-l`."""
    values = summary_of(view, kind, tasks_seen, reference_T=reference_T)
    scorers = dict.fromkeys(scorers_of(view))
    if len(scorers) > 1:
        for scorer in scorers:
            for name, value in summary_of(view, kind, tasks_seen, scorer, reference_T).items():
                values[f"{name}/{scorer}"] = value
    return values
