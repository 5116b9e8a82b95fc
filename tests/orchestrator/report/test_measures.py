"""What a result says of its scorers."""

from __future__ import annotations

import numpy as np

from methods.reference_runs import SEQUENTIAL
from orchestrator.evaluation.measure import PERCENT
from orchestrator.report.measures import all_metrics, named_measure, parts_by_scorer, result_measure
from tests.orchestrator.report.examples import mixed_result_of, result_of

MATRIX = np.array([[10.0, 20.0], [80.0, 25.0], [60.0, 90.0]])


def test_the_unit_is_named_where_all_have_one() -> None:
    assert named_measure(["sari", "numeric"]) == {"scorers": ["sari", "numeric"], "unit": "%", "better": "higher"}
    assert named_measure(["bits-per-byte"])["better"] == "lower"
    assert named_measure(["perplexity", "numeric"])["unit"] is None


def test_metrics_of_all_tasks_and_of_each_scorers() -> None:
    values = all_metrics(["perplexity", "sari"], (MATRIX, MATRIX + 1), [10, 30], SEQUENTIAL)
    assert values["aa"] is values["bwt"] is None
    first = values["by_scorer"]["perplexity"]
    assert (first["aa"], first["aa_options"], first["bwt"], first["forgetting"]) == (60.0, 61.0, 20.0, -20.0)
    assert (first["unit"], first["scorers"], first["task_ids"]) == ("perplexity", ["perplexity"], [0])
    assert (values["by_scorer"]["sari"]["aa"], values["by_scorer"]["sari"]["bwt"]) == (90.0, None)
    alike = all_metrics(["sari", "sari"], (MATRIX, MATRIX), [10, 30], SEQUENTIAL)
    assert (alike["aa"], alike["micro_aa"], alike["by_scorer"]) == (75.0, 82.5, None)
    waiting = all_metrics(["perplexity", "sari"], (MATRIX, MATRIX), [10, 30], None)
    assert waiting["aa"] is waiting["by_scorer"]["sari"]["aa"] is None


def test_a_part_is_a_result_over_its_own_tasks() -> None:
    parts = list(parts_by_scorer(mixed_result_of()))
    assert [(part["tasks"], part["scorers"], part["aa"]) for part in parts] == [
        (["sport"], ["perplexity"], 60.0),
        (["law"], ["exact-match"], 90.0),
    ]
    assert parts[0]["seconds"] == 4.0
    assert list(parts_by_scorer(result_of())) == []
    assert result_measure(mixed_result_of()) is None
    old = result_of()
    del old["scorers"]
    assert result_measure(old) == PERCENT
