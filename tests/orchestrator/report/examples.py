"""Results of sequences as JSON has them, made up for tests of what is printed and written of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from methods.reference_runs import SEQUENTIAL
from orchestrator.report.measures import all_metrics, named_measure


def result_of(**changes: Any) -> dict[str, Any]:
    """A finished sequence of two tasks, with the given entries changed."""
    result = {
        "id": "ft-news-s1-abc",
        "method": "ft",
        "stream": "news",
        "seed": 1,
        "reference": None,
        "tuning": "full",
        "tasks": ["sport", "law"],
        "test_sizes": [10, 30],
        "accuracy_matrix": [[10.0, 20.0], [80.0, 25.0], [60.0, 90.0]],
        "accuracy_matrix_options": None,
        "aa": 75.0,
        "aa_options": None,
        "micro_aa": 82.5,
        "bwt": -20.0,
        "forgetting": 20.0,
        "fwt": 5.0,
        "average_incremental_accuracy": 77.5,
        "learning_accuracy": 85.0,
        "forgetting_options": None,
        "intransigence": None,
        "measured_from": None,
        "seconds": 4.0,
        "steps": 6,
        "tokens": 41_200,
        "flops": 3.1e12,
        "status": "finished",
        "reason": None,
        "failure": None,
        "scoring_failures": [],
        "dropped_rows": {},
        "runs_finished": 1,
        "runs_planned": 1,
    }
    result |= changes
    none = [None] * len(result["tasks"])
    result.setdefault("intervals", [none] * len(result["accuracy_matrix"]))
    result.setdefault("scorers", ["exact-match"] * len(result["tasks"]))
    return result


def mixed_result_of(**changes: Any) -> dict[str, Any]:
    """The same, whose first task is scored by perplexity: 80 after itself, 60 at the end."""
    result = result_of(**changes)
    scorers = ["perplexity", "exact-match"]
    matrix = np.array(result["accuracy_matrix"])
    nothing = np.full_like(matrix, np.nan)
    return result | named_measure(scorers) | all_metrics(scorers, (matrix, nothing), result["test_sizes"], SEQUENTIAL)
