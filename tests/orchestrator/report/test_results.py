"""The results of an experiment as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.evaluation.metrics import METRICS
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.report.results import add_run_counts, sequence_result
from orchestrator.store.view import View
from orchestrator.training.sequence import run_sequence
from tests.orchestrator.report.examples import result_of


def test_a_sequence_with_all_its_scores(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(model="tiny-bert", stream={"first": 2})
    view = run_sequence(sequence)
    result = sequence_result(sequence, view)
    json.dumps(result)
    matrix = result["accuracy_matrix"]
    assert [len(scores) for scores in matrix] == [2, 2, 2], "shape (T+1) x T"
    assert matrix == view.matrix().tolist()
    assert result["aa"] == pytest.approx(sum(matrix[-1]) / 2)
    assert result["aa_options"] == pytest.approx(sum(result["accuracy_matrix_options"][-1]) / 2)
    assert set(METRICS) <= set(result)
    for scores, intervals in zip(matrix, result["intervals"], strict=True):
        for score, (low, high) in zip(scores, intervals, strict=True):
            assert low <= score <= high
            assert high > low or score in (0.0, 100.0)
    assert (result["scorers"], result["unit"], result["scoring"]) == (["exact-match"] * 2, "%", "auto")
    assert (result["status"], result["test_sizes"], result["steps"]) == ("finished", [10, 10], 6)


def test_a_sequence_with_scores_on_seen_tasks_alone_lacks_forward_transfer(
    sequence_of: Callable[..., SequencePlan],
) -> None:
    changes: dict[str, Any] = {"model": "tiny-bert", "stream": {"first": 3}}
    whole = sequence_result(sequence_of("all", **changes), run_sequence(sequence_of("all", **changes)))
    sequence = sequence_of(**changes, evaluation={"rows": "seen"})
    result = sequence_result(sequence, run_sequence(sequence))
    json.dumps(result)
    for name in ("accuracy_matrix", "accuracy_matrix_options"):
        expected = []
        for tasks_seen, scores in enumerate(whole[name]):
            expected.append([*scores[:tasks_seen], *[None] * (3 - tasks_seen)])
        assert result[name] == expected
    assert (result["status"], result["rows"], whole["rows"]) == ("finished", "seen", "all")
    assert result["test_sizes"] == [10, 10, 10]
    unknown = [name for name in METRICS if result[name] is None]
    assert unknown == ["fwt", "intransigence"], "no run here is one to measure intransigence from"
    matrix = result["accuracy_matrix"]
    assert result["aa"] == pytest.approx(sum(matrix[3]) / 3)
    assert result["bwt"] == pytest.approx((matrix[3][0] - matrix[1][0] + matrix[3][1] - matrix[2][1]) / 2)


def test_a_sequence_that_did_not_start_has_nothing_to_say(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(stream={"first": 2})
    result = sequence_result(sequence, View(sequence.id))
    json.dumps(result)
    assert result["accuracy_matrix"] == [[None, None]] * 3
    assert result["accuracy_matrix_options"] is None
    assert [result[name] for name in METRICS] == [None] * len(METRICS)
    assert (result["status"], result["seconds"], result["dropped_rows"]) == ("waiting", 0, {})


def test_each_result_says_how_many_runs_of_its_method_finished() -> None:
    """On its stream: another stream's failure is not this one's."""
    sequences = [
        result_of(seed=1),
        result_of(seed=2, status="failed"),
        result_of(seed=3),
        result_of(method="lora"),
        result_of(stream="law", status="incomplete"),
    ]
    add_run_counts(sequences)
    counts = [(sequence["runs_finished"], sequence["runs_planned"]) for sequence in sequences]
    assert counts == [(2, 3), (2, 3), (2, 3), (1, 1), (0, 1)]


def test_a_sequence_of_several_units_has_metrics_by_scorer_alone(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(stream={"first": 2, "scorer": {"reviews": "perplexity"}})
    view = run_sequence(sequence)
    result = sequence_result(sequence, view)
    json.dumps(result)
    assert [result[name] for name in METRICS] == [None] * len(METRICS)
    assert (result["unit"], result["better"]) == (None, None)
    matrix = view.matrix()
    of_first = result["by_scorer"]["perplexity"]
    assert of_first["aa"] == pytest.approx(matrix[2, 0])
    assert of_first["forgetting"] == pytest.approx(matrix[2, 0] - matrix[1, 0])
    assert result["by_scorer"]["exact-match"]["aa"] == pytest.approx(matrix[2, 1])
