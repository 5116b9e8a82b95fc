"""A trial and how it ended, as values that follow from its sequences' journals.

Scores and metrics are in the unit of the streams' scorers, on the dev split; times are in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from methods import run_kind
from orchestrator.config.search import SearchConfig
from orchestrator.evaluation import metrics
from orchestrator.evaluation.measure import Direction, Measure
from orchestrator.evaluation.scorers import measure_of
from orchestrator.evaluation.view_metrics import scorers_of, summary_of
from orchestrator.planning.recovery import recovered_view
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.search.space import Values
from orchestrator.store.identities import trial_name
from orchestrator.store.view import View


@dataclass(frozen=True)
class Trial:
    """One method with one choice of values, on every tuning stream with every tuning seed."""

    method: str
    number: int
    values: Values
    sequences: tuple[SequencePlan, ...] = field(repr=False)
    definition: str = ""

    @property
    def key(self) -> str:
        """Its name within the search."""
        return trial_name(self.method, self.number)

    @property
    def identity(self) -> dict[str, Any]:
        """The fields that each of its events has."""
        return {"definition": self.definition, "method": self.method, "number": self.number}

    @property
    def num_tasks(self) -> int:
        """The number of tasks of each of its sequences: all tuning streams have as many."""
        return len(self.sequences[0].tasks)

    @property
    def measure(self) -> Measure:
        """What its scores are: all streams of a search have one measure, as was checked when it was defined."""
        measure = measure_of(self.sequences[0].scorers)
        assert measure is not None
        return measure

    def views(self) -> list[View]:
        """What its sequences' journals say, with what was lost of them."""
        return [recovered_view(s) for s in self.sequences]


@dataclass(frozen=True)
class Cost:
    """What a trial took: `tasks` counts what it asked for, `trained` what no other trial had trained before.

    `seconds` is training time of what the trial itself trained, `gpu_seconds` the same times workers and GPUs of each.
    """

    tasks: int
    trained: int
    seconds: float
    gpu_seconds: float


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended: finished; stopped (by the scheduler's word alone, after `tasks`); or failed, with the reason."""

    status: str
    tasks: int
    score: float | None
    metrics: dict[str, float | None]
    cost: Cost
    reason: str = ""


def metrics_after(views: Sequence[View], tasks_seen: int) -> dict[str, float | None]:
    """Means over a trial's sequences of the metrics after so many tasks, on the dev split; None where undefined."""
    summaries = []
    for view in views:
        summaries.append(_summary(view, tasks_seen))
    means: dict[str, float | None] = {}
    for name in summaries[0]:
        mean = float(np.mean([summary[name] for summary in summaries]))
        # NaN has no JSON, and a metric that one sequence lacks is none of the trial's.
        means[name] = None if math.isnan(mean) else mean
    return means


def _summary(view: View, tasks_seen: int) -> dict[str, float]:
    reference = view.start.sequence["method"].get("reference") if view.start else None
    summary = summary_of(view, run_kind(reference), tasks_seen)
    # Metrics that do not apply to a reference run stay, undefined: every trial of a search has the same columns.
    undefined = dict.fromkeys(metrics.METRICS, math.nan)
    return undefined | summary


def score_of(
    values: Mapping[str, float | None], metric: str, forgetting_weight: float, better: Direction = "higher"
) -> float | None:
    """What a search maximises: metric - `forgetting_weight` x forgetting. None where the metric is undefined.

    The metrics that a search may name are means of scores: where a lower score is `better`, it maximises -metric. Of
    forgetting less is better. Both are of the same scores: where only a task's own options compete, forgetting among them.
    """
    main = values[metric]
    if main is None:
        return None
    # A reference run, and a method after its first task, has nothing to forget.
    forgetting = values[metrics.METRICS[metric].forgetting] or 0.0
    if better == "lower":
        main = -main
    return main - forgetting_weight * forgetting


def score_after(search: SearchConfig, views: Sequence[View], tasks_seen: int) -> float:
    """A trial's score after so many tasks. Raises ValueError where the metric does not apply to the model."""
    # all streams of a search have one measure, as was checked when it was defined
    measure = measure_of(scorers_of(views[0]))
    assert measure is not None
    score = score_of(metrics_after(views, tasks_seen), search.metric, search.forgetting_weight, measure.better)
    if score is None:
        raise ValueError(f"search.metric: {search.metric} does not apply to models that generate their answers")
    return score


def tasks_done(views: Sequence[View]) -> int:
    """The number of tasks, from the first, that all of a trial's sequences have trained and scored."""
    return min(map(_tasks_done, views))


def _tasks_done(view: View) -> int:
    done = 0
    # Scores may come out of order; those after a gap do not count until it is filled.
    while done < len(view.tasks) and view.has_all_scores(done + 1):
        done += 1
    return done


def cost_of(views: Sequence[View], workers: int, gpus: float) -> Cost:
    """What a trial took, from its journals, with so many workers and GPUs for each."""
    asked = 0
    trained = 0
    seconds = 0.0
    for view in views:
        for task in view.by_task.values():
            if task.checkpoint is None:
                continue
            asked += 1
            if not task.checkpoint.reused:
                trained += 1
                seconds += task.checkpoint.seconds
    return Cost(asked, trained, round(seconds, 2), round(seconds * workers * gpus, 2))


def trial_result(
    trial: Trial,
    search: SearchConfig,
    workers: int,
    gpus: float,
    problem: str = "",
    stopped_after: int | None = None,
) -> TrialResult:
    """How a trial that no longer runs ended, from its sequences' journals.

    `problem` is what went wrong around it: of a trial that has all of its scores no failure. `stopped_after` is the number
    of tasks after which the scheduler ended it: what its journals have beyond them does not count. A trial that ended early
    and was not stopped has failed, also where nobody says why.
    """
    views = trial.views()
    cost = cost_of(views, workers, gpus)
    done = tasks_done(views)
    if stopped_after is not None:
        done = min(done, stopped_after)
    reason = _failure(views)
    # What was told to stop and got there is stopped, whatever became of its driver then.
    is_stopped = stopped_after is not None and done == stopped_after
    if not reason and done < trial.num_tasks and not is_stopped:
        reason = problem
    if not reason and done == 0:
        reason = "it ended before its first task was done"
    if not reason and done < trial.num_tasks and not is_stopped:
        reason = f"its driver ended without a word after {done} of {trial.num_tasks} tasks"
    if reason:
        return TrialResult("failed", done, None, {}, cost, reason)
    try:
        score = score_after(search, views, done)
    except ValueError as error:
        return TrialResult("failed", done, None, {}, cost, str(error))
    status = "finished" if done == trial.num_tasks else "stopped"
    return TrialResult(status, done, round(score, 6), metrics_after(views, done), cost)


def _failure(views: Sequence[View]) -> str:
    for view in views:
        if view.status == "failed":
            return view.failure
    return ""
