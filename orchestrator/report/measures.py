"""The metrics of a sequence over all of its tasks and over those of each scorer, and in which unit its scores are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from methods.reference_runs import RunKind
from orchestrator.evaluation import metrics
from orchestrator.evaluation.measure import PERCENT, Measure
from orchestrator.evaluation.scorers import SCORERS, measure_of, tasks_by_scorer
from orchestrator.report.numbers import plain_number

Result = dict[str, Any]  # of one sequence, see `orchestrator.report.results.sequence_result`


def named_measure(scorers: Sequence[str]) -> dict[str, Any]:
    """What a result says of its scores: the scorer of each task, and the unit and good direction that they have in common."""
    measure = measure_of(scorers)
    named: dict[str, Any] = {"scorers": list(scorers), "unit": None, "better": None}
    if measure is not None:
        named |= {"unit": measure.unit, "better": measure.better}
    return named


def all_metrics(
    scorers: Sequence[str],
    matrices: tuple[metrics.Matrix, metrics.Matrix],
    test_sizes: Sequence[int],
    kind: RunKind | None,
) -> dict[str, Any]:
    """The metrics of a run of that kind (None: it is not scored to its end, and has none yet), and those of each scorer.

    `matrices`: the accuracy matrix, and the one among each task's own options.
    """
    matrix, options_matrix = matrices
    found = _plain({})
    if kind is not None:
        measure = measure_of(scorers)
        found = _plain(metrics.summary(matrix, test_sizes, options_matrix, kind=kind, measure=measure))
    groups = tasks_by_scorer(scorers)
    found["by_scorer"] = None
    if len(groups) > 1:
        found["by_scorer"] = {}
        for name, tasks in groups.items():
            values = {}
            if kind is not None:
                measure = SCORERS[name].measure
                values = metrics.summary(matrix, test_sizes, options_matrix, kind=kind, measure=measure, tasks=tasks)
            found["by_scorer"][name] = {**named_measure([name]), **_plain(values), "task_ids": tasks}
    return found


def _plain(values: Mapping[str, float]) -> dict[str, Any]:
    """Every metric for JSON; None for those that do not apply or are not known."""
    plain = {}
    for name in metrics.METRICS:
        plain[name] = plain_number(values.get(name))
    return plain


def result_measure(result: Mapping[str, Any]) -> Measure | None:
    """The measure of a result's scores; None where they have several. Results of before there were any other are in %."""
    if "scorers" not in result:
        return PERCENT
    return measure_of(result["scorers"])


def parts_by_scorer(result: Result) -> Iterator[Result]:
    """The result over the tasks of each of its scorers; of one that has a single scorer nothing."""
    for part in (result.get("by_scorer") or {}).values():
        yield {**result, **part, "tasks": [result["tasks"][task_id] for task_id in part["task_ids"]]}
