"""The results of an experiment as one JSON object, from its journals alone."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from methods import run_kind
from orchestrator.evaluation import metrics
from orchestrator.planning.experiment import Experiment, stored_values, tracking_uri
from orchestrator.planning.recovery import recovered_view
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.report.curves.results import knowledge_result, point_results
from orchestrator.report.experts import merge_experts
from orchestrator.report.measures import all_metrics, named_measure
from orchestrator.report.numbers import plain_matrix
from orchestrator.report.probes import probe_results
from orchestrator.report.references import add_intransigence, add_lifelong
from orchestrator.store.journal import DamagedLine, damage_line
from orchestrator.store.view import View

USAGE_UNITS = ("steps", "tokens", "flops")


def results(experiment: Experiment) -> dict[str, Any]:
    """The JSON object of an experiment. Of a run that has one sequence for each task, these are one entry of it."""
    # what a reader compares is a method on a stream with a seed, whatever number of sequences it took
    entries: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
    damaged: list[DamagedLine] = []
    for sequence in experiment.sequences:
        # one at a time: a thousand views at once would fill the memory for nothing
        view = recovered_view(sequence)
        damaged += view.damaged
        part = sequence_result(sequence, view)
        entries[part["method"], part["stream"], part["seed"]].append(part)
    sequences = []
    for parts in entries.values():
        if run_kind(parts[0]["reference"]).one_sequence_per_task:
            sequences.append(merge_experts(parts, USAGE_UNITS))
        else:
            sequences += parts
    add_intransigence(sequences)
    add_lifelong(sequences)
    add_run_counts(sequences)
    return {
        "experiment": experiment.config.name,
        "sequences": sequences,
        "damaged_lines": damage_line(damaged) if damaged else None,
        "mlflow": stored_values(experiment.config)["tracking"]["uri"] or tracking_uri(experiment.config),
        "out": experiment.config.out,
        "report": str(experiment.folder / "summary.csv"),
    }


def add_run_counts(sequences: list[dict[str, Any]]) -> None:
    """Say at each sequence how many of its method's runs on its stream were planned, and how many have finished."""
    runs: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for sequence in sequences:
        runs[sequence["method"], sequence["stream"]].append(sequence)
    for siblings in runs.values():
        finished = [sibling["status"] for sibling in siblings].count("finished")
        for sibling in siblings:
            sibling["runs_finished"] = finished
            sibling["runs_planned"] = len(siblings)


def sequence_result(sequence: SequencePlan, view: View) -> dict[str, Any]:
    """All that is known of one sequence: matrices, metrics, cost and status. What is missing or does not apply is None.

    `accuracy_matrix` and `accuracy_matrix_options` (scores when only a task's own options compete; None for models that
    generate) have shape (T+1) x T: the first entry is the initial model, the t-th after it the state after t tasks; so have
    `intervals`, the [low, high] of each score over its examples. A score
    is in the unit of its task's scorer (`scorers`); `unit` and `better` are None where these differ, and then so are the
    metrics. With several scorers, `by_scorer` has the metrics over the tasks of each. With `rows` "seen", each state is
    scored on the tasks that it has seen alone: all above that is missing, and `fwt` too.
    """
    matrix, options_matrix, test_sizes = _scores(sequence, view)
    has_options = not np.isnan(options_matrix).all()
    result: dict[str, Any] = {
        "id": sequence.id,
        "method": sequence.method.label,
        "stream": sequence.stream.name,
        "seed": sequence.seed,
        "reference": sequence.method.reference,
        "tuning": sequence.method.tuning.name,
        "tasks": list(sequence.tasks),
        "scoring": sequence.model.scoring,
        **named_measure(sequence.scorers),
        "test_sizes": test_sizes,
        "rows": view.rows,
        "accuracy_matrix": plain_matrix(matrix),
        "accuracy_matrix_options": plain_matrix(options_matrix) if has_options else None,
        "intervals": _intervals(view, len(sequence.tasks)),
    }
    result["probes"] = probe_results(view)
    # a mean over what is there by now would pass for the metric of the whole sequence
    kind = sequence.method.run_kind if view.is_scored() else None
    result |= all_metrics(result["scorers"], (matrix, options_matrix), test_sizes, kind)
    result |= point_results(sequence, view) | knowledge_result(sequence, matrix, view.is_scored())
    result["seconds"] = round(view.seconds, 2)
    for unit in USAGE_UNITS:
        result[unit] = view.usage(unit)
    result["status"] = view.status
    result["reason"] = view.failure or None
    # of a sequence that was tried again, the last attempt's alone
    result["failure"] = view.failed.model_dump(mode="json") if view.failed else None
    result["scoring_failures"] = [failure.model_dump(mode="json") for failure in view.unscored()]
    result["dropped_rows"] = _dropped_rows(view)
    return result


def _scores(sequence: SequencePlan, view: View) -> tuple[metrics.Matrix, metrics.Matrix, list[int]]:
    """The accuracy matrix, the one among each task's options, and the test sizes; of a run that did not start, no scores."""
    num_tasks = len(sequence.tasks)
    if not view.tasks:
        nothing = np.full((num_tasks + 1, num_tasks), np.nan)
        return nothing, nothing, [0] * num_tasks
    return view.matrix(), view.matrix("score_options"), view.test_sizes()


def _intervals(view: View, num_tasks: int) -> list[list[list[float] | None]]:
    intervals: list[list[list[float] | None]] = []
    for tasks_seen in range(num_tasks + 1):
        of_state: list[list[float] | None] = []
        for task_id in range(num_tasks):
            score = view.scores.get((tasks_seen, task_id))
            found = None
            if score is not None and score.interval is not None:
                found = [round(bound, 6) for bound in score.interval]
            of_state.append(found)
        intervals.append(of_state)
    return intervals


def _dropped_rows(view: View) -> dict[str, dict[str, int]]:
    """The number of rows of each split that were dropped from a task's data, for tasks that lost any."""
    dropped: dict[str, dict[str, int]] = {}
    if view.start is None:
        return dropped
    for task in view.start.data:
        if any(task["dropped_rows"].values()):
            dropped[task["task"]] = task["dropped_rows"]
    return dropped
