"""TODO orchestrator.report.results"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import Any

import numpy as np

from methods import run_kind
from orchestrator.evaluation import metrics
from orchestrator.planning.experiment import Experiment, tracking_uri
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.view import View

USAGE_UNITS = ("steps", "tokens", "flops")


def sequence_result(sequence: SequencePlan, view: View) -> dict[str, Any]:
    """All that is known of one sequence: matrix (row 0: before training), metrics, cost, status. What is missing: None."""
    full = view.matrix() if view.tasks else np.full((len(sequence.tasks) + 1, len(sequence.tasks)), np.nan)
    options = view.matrix("score_options") if view.tasks else full * np.nan
    sizes = [view.test_sizes()[j] if view.tasks else 0 for j in range(len(sequence.tasks))]
    complete = not np.isnan(full).any()
    values = metrics.summary(full, sizes) if complete else {}
    if sequence.method.reference:
        values = metrics.of_a_reference_run(values)
    return {
        "id": sequence.id,
        "method": sequence.method.label,
        "stream": sequence.stream.name,
        "seed": sequence.seed,
        "reference": sequence.method.reference,
        "tasks": list(sequence.tasks),
        "test_sizes": sizes,
        "accuracy_matrix": _plain(full),
        "accuracy_matrix_options": _plain(options) if not np.isnan(options).all() else None,
        **{key: _number(values.get(key)) for key in
           ("aa", "micro_aa", "bwt", "forgetting", "fwt", "average_incremental_accuracy", "learning_accuracy")},
        "aa_options": _number(float(np.mean(options[-1]))),
        "seconds": round(view.seconds, 2),
        **{unit: view.usage(unit) for unit in USAGE_UNITS},
        "status": view.status,
        "reason": view.failure or None,
        "failure": view.failed.model_dump(mode="json") if view.failed else None,
        "dropped_rows": {d["task"]: d["dropped_rows"]
            for d in (view.start.data if view.start else []) if any(d["dropped_rows"].values())},
    }  # fmt: skip


def _experts(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Experts as one entry: each task's score by its own, in the place where a sequence has the task just learnt."""
    count = len(parts)
    full, options = np.full((count + 1, count), np.nan), np.full((count + 1, count), np.nan)
    for j, part in enumerate(parts):
        for matrix, name in ((full, "accuracy_matrix"), (options, "accuracy_matrix_options")):
            for row, cells in zip((0, j + 1), part[name] or [], strict=False):
                matrix[row, j] = math.nan if cells[0] is None else cells[0]
    sizes = [part["test_sizes"][0] for part in parts]
    own, own_options = np.diag(full[1:]), np.diag(options[1:])
    states = list(dict.fromkeys(part["status"] for part in parts))
    return parts[0] | {
        "id": re.sub(r"[^A-Za-z0-9.]+", "-", "{method}-{stream}-s{seed}".format(**parts[0])),
        "tasks": [part["tasks"][0] for part in parts],
        "test_sizes": sizes,
        "accuracy_matrix": _plain(full),
        "accuracy_matrix_options": None if np.isnan(options).all() else _plain(options),
        "aa": _number(float(np.mean(own))),
        "aa_options": _number(float(np.mean(own_options))),
        "micro_aa": _number(float(np.average(own, weights=sizes))) if all(sizes) else None,
        "seconds": round(sum(part["seconds"] for part in parts), 2),
        **{
            unit: sum(part[unit] for part in parts) if all(part[unit] is not None for part in parts) else None
            for unit in USAGE_UNITS
        },
        "status": states[0] if len(states) == 1 else ", ".join(states),
        "reason": next((part["reason"] for part in parts if part["reason"]), None),
        "failure": next((part["failure"] for part in parts if part["failure"]), None),
        "dropped_rows": {task: counts for part in parts for task, counts in part["dropped_rows"].items()},
    }


def results(experiment: Experiment) -> dict[str, Any]:
    """The JSON object of an experiment. A method's experts, one a task, are one entry of it."""
    together: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
    for sequence, view in zip(experiment.sequences, experiment.views(), strict=True):
        part = sequence_result(sequence, view)
        together[part["method"], part["stream"], part["seed"]].append(part)
    return {
        "experiment": experiment.config.name,
        "sequences": [
            _experts(parts) if run_kind(parts[0]["reference"]).one_sequence_per_task else parts[0]
            for parts in together.values()
        ],
        "mlflow": tracking_uri(experiment.config),
        "out": experiment.config.out,
        "report": str(experiment.folder / "summary.csv"),
    }


def _plain(matrix: metrics.Matrix) -> list[list[float | None]]:
    return [[_number(float(cell)) for cell in row] for row in matrix]


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 6)
