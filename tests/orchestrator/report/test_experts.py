"""The sequences of experts, one for each task, as one result."""

from __future__ import annotations

from typing import Any

from orchestrator.report.experts import merge_experts
from tests.orchestrator.report.examples import result_of

UNITS = ("steps", "tokens", "flops")


def expert(task: str, before: float | None, after: float | None, size: int, **changes: Any) -> dict[str, Any]:
    matrix = [[before], [after]]
    return result_of(
        method="expert", reference="expert", tasks=[task], test_sizes=[size], accuracy_matrix=matrix, **changes
    )


def test_each_task_has_the_score_of_its_own_expert() -> None:
    merged = merge_experts([expert("sport", 10.0, 80.0, 10), expert("law", 20.0, 90.0, 30)], UNITS)
    assert merged["tasks"] == ["sport", "law"]
    assert merged["accuracy_matrix"] == [[10.0, 20.0], [80.0, None], [None, 90.0]]
    assert merged["accuracy_matrix_options"] is None
    assert (merged["aa"], merged["micro_aa"], merged["aa_options"]) == (85.0, 87.5, None)
    assert merged["id"] == "expert-news-s1"
    assert (merged["seconds"], merged["tokens"]) == (8.0, 82_400)
    assert merged["status"] == "finished"


def test_what_one_expert_lacks_the_whole_lacks() -> None:
    waiting = expert("law", None, None, 0, tokens=None, status="waiting", reason="no room")
    merged = merge_experts([expert("sport", 10.0, 80.0, 10, dropped_rows={"sport": {"test": 1}}), waiting], UNITS)
    assert (merged["aa"], merged["micro_aa"], merged["tokens"]) == (None, None, None)
    assert merged["steps"] == 12
    assert (merged["status"], merged["reason"]) == ("finished, waiting", "no room")
    assert merged["dropped_rows"] == {"sport": {"test": 1}}


def test_scores_among_options_stand_on_the_diagonal_too() -> None:
    parts = [
        expert("sport", 10.0, 80.0, 10, accuracy_matrix_options=[[50.0], [95.0]]),
        expert("law", 20.0, 90.0, 30, accuracy_matrix_options=[[40.0], [85.0]]),
    ]
    merged = merge_experts(parts, UNITS)
    assert merged["accuracy_matrix_options"] == [[50.0, 40.0], [95.0, None], [None, 85.0]]
    assert merged["aa_options"] == 90.0


def test_experts_of_several_scorers_have_their_metrics_by_scorer() -> None:
    parts = [
        expert("sport", 10.0, 80.0, 10, scorers=["perplexity"]),
        expert("law", 20.0, 90.0, 30, scorers=["exact-match"]),
    ]
    merged = merge_experts(parts, UNITS)
    assert (merged["scorers"], merged["unit"], merged["aa"]) == (["perplexity", "exact-match"], None, None)
    assert [merged["by_scorer"][name]["aa"] for name in merged["scorers"]] == [80.0, 90.0]
    alike = merge_experts([parts[0], expert("law", 20.0, 90.0, 30, scorers=["perplexity"])], UNITS)
    assert (alike["aa"], alike["micro_aa"], alike["better"], alike["by_scorer"]) == (85.0, 87.5, "lower", None)


def test_intervals_stand_where_the_scores_do() -> None:
    parts = [
        expert("sport", 10.0, 80.0, 10, intervals=[[[5.0, 15.0]], [[70.0, 90.0]]]),
        expert("law", 20.0, 90.0, 30, intervals=[[None], [[85.0, 95.0]]]),
    ]
    merged = merge_experts(parts, UNITS)
    assert merged["intervals"] == [[[5.0, 15.0], None], [[70.0, 90.0], None], [None, [85.0, 95.0]]]
