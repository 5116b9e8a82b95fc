"""Metrics of what a sequence's journal says."""

from __future__ import annotations

from methods.reference_runs import RunKind
from orchestrator.evaluation import metrics
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
