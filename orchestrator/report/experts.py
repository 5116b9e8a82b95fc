"""Runs that train each task alone: the results of their sequences, one for each task, as the result of one run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from methods import run_kind
from orchestrator.evaluation import metrics
from orchestrator.report.measures import all_metrics, named_measure
from orchestrator.report.numbers import plain_matrix


def merge_experts(parts: Sequence[dict[str, Any]], usage_units: Sequence[str]) -> dict[str, Any]:
    """One result from those of the sequences that each train one task (see `results.sequence_result`).

    In the accuracy matrix of shape (T+1) x T, each task's score stands where a sequence of all tasks has the score of the
    task that it has just learnt; all others are missing, since no expert answers another's task.
    """
    merged = dict(parts[0])
    # the id is a part of a file's name, and a method's name may have any sign
    merged["id"] = re.sub(r"[^A-Za-z0-9.]+", "-", "{method}-{stream}-s{seed}".format(**merged))
    tasks = []
    scorers: list[str] = []
    test_sizes = []
    for part in parts:
        tasks += part["tasks"]
        scorers += part["scorers"]
        test_sizes += part["test_sizes"]
    merged["tasks"] = tasks
    merged["test_sizes"] = test_sizes
    merged["probes"] = []
    matrix = _on_the_diagonal(parts, "accuracy_matrix")
    options_matrix = _on_the_diagonal(parts, "accuracy_matrix_options")
    merged["accuracy_matrix"] = plain_matrix(matrix)
    merged["accuracy_matrix_options"] = None
    if not np.isnan(options_matrix).all():
        merged["accuracy_matrix_options"] = plain_matrix(options_matrix)
    # what the formulas take as the scores after the last task: here, each task's after its own training
    own_scores = np.full_like(matrix, np.nan)
    own_scores[-1] = np.diag(matrix[1:])
    own_options = np.full_like(matrix, np.nan)
    own_options[-1] = np.diag(options_matrix[1:])
    merged["intervals"] = _intervals_on_the_diagonal(parts)
    merged |= named_measure(scorers)
    merged |= all_metrics(scorers, (own_scores, own_options), test_sizes, run_kind(merged["reference"]))
    _merge_cost(merged, parts, usage_units)
    _merge_status(merged, parts)
    return merged


def _on_the_diagonal(parts: Sequence[dict[str, Any]], name: str) -> metrics.Matrix:
    """The (T+1) x T matrix of T experts, from their 2 x 1 matrices of that name."""
    num_tasks = len(parts)
    matrix = np.full((num_tasks + 1, num_tasks), np.nan)
    for task_id, part in enumerate(parts):
        if part[name] is not None:
            of_initial_model, of_expert = metrics.as_matrix(part[name])[:, 0]
            matrix[0, task_id] = of_initial_model
            matrix[task_id + 1, task_id] = of_expert
    return matrix


def _intervals_on_the_diagonal(parts: Sequence[dict[str, Any]]) -> list[list[list[float] | None]]:
    """The intervals of the scores that stand in the matrix."""
    num_tasks = len(parts)
    intervals: list[list[list[float] | None]] = []
    for _ in range(num_tasks + 1):
        intervals.append([None] * num_tasks)
    for task_id, part in enumerate(parts):
        (of_initial_model,), (of_expert,) = part["intervals"]
        intervals[0][task_id] = of_initial_model
        intervals[task_id + 1][task_id] = of_expert
    return intervals


def _merge_cost(merged: dict[str, Any], parts: Sequence[dict[str, Any]], usage_units: Sequence[str]) -> None:
    """Sums over the experts; None where one of them does not know."""
    merged["seconds"] = round(sum(map(itemgetter("seconds"), parts)), 2)
    for unit in usage_units:
        amounts = list(map(itemgetter(unit), parts))
        merged[unit] = None
        if None not in amounts:
            merged[unit] = sum(amounts)


def _merge_status(merged: dict[str, Any], parts: Sequence[dict[str, Any]]) -> None:
    """Every status that an expert has, the first failure with its reason, and all failures to score and dropped rows."""
    statuses: list[str] = []
    merged["reason"] = None
    merged["failure"] = None
    merged["scoring_failures"] = []
    merged["dropped_rows"] = {}
    for part in parts:
        if part["status"] not in statuses:
            statuses.append(part["status"])
        if merged["reason"] is None:
            merged["reason"] = part["reason"]
            merged["failure"] = part["failure"]
        merged["scoring_failures"] += part["scoring_failures"]
        merged["dropped_rows"].update(part["dropped_rows"])
    merged["status"] = ", ".join(statuses)
