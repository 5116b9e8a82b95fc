"""TODO orchestrator.search.trials"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from orchestrator.config.method import MethodEntry
from orchestrator.config.search import SearchConfig
from orchestrator.evaluation import metrics
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.search.space import Space, Values
from orchestrator.store.view import View, read_view


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
        return f"{self.method}-{self.number:03d}"

    @property
    def tasks(self) -> int:
        """Tasks of each of its sequences."""
        return len(self.sequences[0].tasks)

    def views(self) -> list[View]:
        """What its sequences' journals say."""
        return [read_view(s.out, s.id) for s in self.sequences]


@dataclass(frozen=True)
class Cost:
    """What a trial took. `tasks` counts what it asked for, `trained` what no other had trained before."""

    tasks: int
    trained: int
    seconds: float
    gpu_seconds: float


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended: finished; stopped (by the scheduler, after `tasks`); or failed, with the reason."""

    status: str
    tasks: int
    score: float | None
    metrics: dict[str, float | None]
    cost: Cost
    reason: str = ""


def metrics_after(views: Sequence[View], tasks: int) -> dict[str, float | None]:
    """Means over a trial's sequences of the metrics after so many tasks, on the dev split; None where undefined."""
    rows = []
    for view in views:
        options_TT = view.matrix("score_options")[tasks, :tasks]
        row = metrics.summary(view.matrix(), view.test_sizes(), upto=tasks)
        if view.start and view.start.sequence["method"].get("reference"):
            row = dict.fromkeys(row, math.nan) | metrics.of_a_reference_run(row)
        rows.append(row | {"aa_options": float(np.mean(options_TT))})
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    return {key: None if math.isnan(value) else value for key, value in means.items()}


def score_of(search: SearchConfig, values: Mapping[str, float | None]) -> float:
    """What the search maximises. Raises ValueError where the metric does not apply to the model."""
    main, lost = values[search.metric], values["forgetting"] or 0.0
    if main is None:
        raise ValueError(f"search.metric: {search.metric} does not apply to models that generate their answers")
    return main - search.forgetting_weight * lost


def tasks_done(views: Sequence[View]) -> int:
    """Tasks that all of a trial's sequences have trained and scored."""

    def done(view: View) -> int:
        rows = (t for t in range(1, len(view.tasks) + 1) if not view.has_all_scores(t))
        return next(rows, len(view.tasks) + 1) - 1

    return min(done(view) for view in views)


def cost_of(trial: Trial, views: Sequence[View], workers: int, gpus: float) -> Cost:
    """From the journals: training time of what the trial itself trained."""
    made = [task.checkpoint for view in views for task in view.by_task.values() if task.checkpoint]
    seconds = sum(event.seconds for event in made if not event.reused)
    trained = sum(not event.reused for event in made)
    return Cost(len(made), trained, round(seconds, 2), round(seconds * workers * gpus, 2))


def trial_result(trial: Trial, search: SearchConfig, workers: int, gpus: float, problem: str = "") -> TrialResult:
    """How a trial that no longer runs ended, from its sequences' journals."""
    views = trial.views()
    cost = cost_of(trial, views, workers, gpus)
    done = tasks_done(views) if all(view.tasks for view in views) else 0
    # what went wrong around a trial that has all of its scores is no failure of the trial
    failure = next((view.failure for view in views if view.status == "failed"), "" if done == trial.tasks else problem)
    if failure or not done:
        return TrialResult("failed", done, None, {}, cost, failure or "it ended before its first task was done")
    found = metrics_after(views, done)
    try:
        score = score_of(search, found)
    except ValueError as error:
        return TrialResult("failed", done, None, {}, cost, str(error))
    return TrialResult("finished" if done == trial.tasks else "stopped", done, round(score, 6), found, cost)


@dataclass(frozen=True)
class MethodSearch:
    """A method of the search: its space, and the name for everything that its trials depend on."""

    entry: MethodEntry
    space: Space
    definition: str

    @property
    def label(self) -> str:
        """The method's name."""
        return self.entry.label


def search_key(name: str) -> str:
    """Names the search's run in MLflow."""
    return f"search:{name}"


def trial_node(root: str, key: str, definition: str) -> str:
    """Names a trial's run in MLflow. A search that is defined anew under its old name has other trials."""
    return f"{root}/{key}-{definition[:8]}"
