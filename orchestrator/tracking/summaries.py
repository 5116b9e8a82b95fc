"""The metrics of a sequence after each task, at times that do not depend on which score was read first.

A point of a metric is known by its time too, so that the same number at another time would be a second point.
"""

from __future__ import annotations

import math
from dataclasses import replace

from methods import RunKind
from orchestrator.evaluation.view_metrics import summaries_of
from orchestrator.store.events import ScoreComputed
from orchestrator.store.view import View

Scores = dict[tuple[int, int], ScoreComputed]


def summaries_at_last(view: View, kind: RunKind, tasks_seen: int) -> list[tuple[int, dict[str, float]]]:
    """(time, metrics) after so many tasks: each number at the latest time among the scores that it is of.

    First what follows from the scores on tasks that a state has seen. What needs those before a task's turn as well comes when
    all of these are there: they may have been asked for much later.
    """
    of_seen: Scores = {}
    of_all: Scores = {}
    for (scored_after, task_id), score in view.scores.items():
        if scored_after <= tasks_seen and task_id < tasks_seen:
            of_all[scored_after, task_id] = score
            if task_id < scored_after:
                of_seen[scored_after, task_id] = score
    values = summaries_of(replace(view, scores=of_seen), kind, tasks_seen)
    groups = [(_last_time(of_seen), values)]
    if len(of_all) == (tasks_seen + 1) * tasks_seen:
        more: dict[str, float] = {}
        for name, value in summaries_of(view, kind, tasks_seen).items():
            if math.isnan(values[name]):
                more[name] = value
        groups.append((_last_time(of_all), more))
    return groups


def _last_time(scores: Scores) -> int:
    return max(score.time for score in scores.values())
