"""Intransigence beside the reference runs of an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.evaluation.curves.lifelong import LIFELONG
from orchestrator.report.references import add_intransigence, add_lifelong, record_references, reference_scores
from orchestrator.store.view import read_view
from tests.orchestrator.report.examples import mixed_result_of, result_of

# Right after they were learnt, the two tasks of `result_of` have 80 and 90.
JOINT = [[10.0, 20.0], [10.0, 20.0], [82.0, 97.0]]
EXPERT = [[10.0, 20.0], [86.0, None], [None, 91.0]]


def reference(kind: str, matrix: list[list[Any]], **changes: Any) -> dict[str, Any]:
    return result_of(**{"method": kind, "reference": kind, "accuracy_matrix": matrix, **changes})


def measured(*sequences: dict[str, Any]) -> tuple[float | None, str | None]:
    """The first one's intransigence beside all of them, and from what it was measured."""
    add_intransigence(sequences)
    return sequences[0]["intransigence"], sequences[0]["measured_from"]


def test_by_hand() -> None:
    assert measured(result_of(), reference("joint", JOINT)) == ((2 + 7) / 2, "joint")
    assert measured(result_of(), reference("expert", EXPERT)) == ((6 + 1) / 2, "expert")
    lower = [[0.0, 0.0], [0.0, 0.0], [60.0, 95.0]]
    assert measured(result_of(), reference("joint", lower)) == ((-20 + 5) / 2, "joint")


def test_joint_training_comes_before_experts() -> None:
    assert measured(result_of(), reference("expert", EXPERT), reference("joint", JOINT))[1] == "joint"


def test_the_methods_own_way_of_tuning_comes_before_another() -> None:
    full = reference("joint", JOINT)
    lora = reference("joint", [[0.0, 0.0], [0.0, 0.0], [70.0, 80.0]], method="joint-lora", tuning="lora")
    assert measured(result_of(tuning="lora"), full, lora) == (-10.0, "joint-lora")
    assert measured(result_of(tuning="olora"), full, lora) == (4.5, "joint"), "the first, where none is its own"


def test_only_a_finished_reference_run_of_the_same_stream_and_seed_counts() -> None:
    nothing = (None, None)
    assert measured(result_of()) == nothing
    assert measured(result_of(), reference("joint", JOINT, seed=2)) == nothing
    assert measured(result_of(), reference("joint", JOINT, stream="other")) == nothing
    assert measured(result_of(), reference("joint", JOINT, status="failed")) == nothing
    assert measured(result_of(status="failed"), reference("joint", JOINT)) == nothing
    assert measured(result_of(), reference("zero-shot", JOINT)) == nothing
    # a failed joint run is not replaced by experts: the seeds of a method are measured alike
    assert measured(result_of(), reference("joint", JOINT, status="failed"), reference("expert", EXPERT)) == nothing


def test_a_reference_run_has_none_itself() -> None:
    joint = reference("joint", JOINT)
    assert measured(joint, reference("expert", EXPERT)) == (None, None)
    assert reference_scores(joint) == [82.0, 97.0]


def test_a_journal_is_told_once_and_again_where_the_scores_are_others(tmp_path: Path) -> None:
    sequences = [result_of(), reference("joint", JOINT)]
    add_intransigence(sequences)
    for _ in range(2):
        record_references(str(tmp_path), sequences)
    known = read_view(tmp_path, sequences[0]["id"]).reference
    assert known is not None
    assert (known.reference, known.scores) == ("joint", [82.0, 97.0])
    files = list(tmp_path.rglob("*.jsonl"))
    assert [file.name for file in files] == ["report.jsonl"]
    assert len(files[0].read_text().splitlines()) == 1
    sequences[1]["accuracy_matrix"] = [*JOINT[:2], [83.0, 97.0]]
    record_references(str(tmp_path), sequences)
    assert len(files[0].read_text().splitlines()) == 2


def test_where_a_lower_score_is_better_a_higher_one_is_lacking() -> None:
    lower = {"scorers": ["perplexity", "perplexity"]}
    assert measured(result_of(**lower), reference("joint", JOINT, **lower)) == ((-2 - 7) / 2, "joint")


def test_several_scorers_have_an_intransigence_each() -> None:
    sequence = mixed_result_of()
    assert measured(sequence, reference("joint", JOINT, scorers=["perplexity", "exact-match"])) == (None, "joint")
    assert sequence["by_scorer"]["perplexity"]["intransigence"] == 80 - 82
    assert sequence["by_scorer"]["exact-match"]["intransigence"] == 97 - 90


# (task, step, scored task, score, examples, seconds); the run has its best score after 2 steps, the experts after 2 and 4
OWN_POINTS = [[0, 0, 0, 10.0, 8, 0.5], [0, 2, 0, 80.0, 8, 0.5], [1, 0, 1, 0.0, 8, 0.5], [1, 2, 1, 90.0, 8, 0.5]]
EXPERT_POINTS = [[0, 0, 0, 10.0, 8, 0.5], [0, 2, 0, 86.0, 8, 0.5], [1, 0, 1, 0.0, 8, 0.5], [1, 4, 1, 91.0, 8, 0.5]]


def test_lifelong_metrics_are_beside_the_experts(tmp_path: Path) -> None:
    """Though joint training is asked first for intransigence."""
    experts = reference("expert", EXPERT, points=EXPERT_POINTS)
    sequences = [result_of(points=OWN_POINTS, fuar=0.5), reference("joint", JOINT), experts]
    add_lifelong(sequences)
    found = sequences[0]
    assert found["lifelong_beside"] == "expert"
    assert found["performance_maintenance"] == 60 - 80
    assert found["forward_transfer_contrast"] == pytest.approx(5 / 45)
    assert found["backward_transfer_contrast"] == pytest.approx(-20 / 140)
    # areas of 90 and 96 for the first task; for the second 90, and of the expert's first two steps 45.5
    assert found["relative_performance"] == pytest.approx((90 / 96 + 90 / 45.5) / 2)
    assert found["saturation"] == pytest.approx((80 / 86 + 90 / 91) / 2, abs=1e-6)
    assert found["saturation_speed"] == pytest.approx((1 + 2) / 2)
    assert "expert" not in experts
    for _ in range(2):
        record_references(str(tmp_path), sequences)
    known = read_view(tmp_path, found["id"]).measured
    assert known is not None
    assert known.expert == "expert"
    assert known.values == {name: found[name] for name in (*LIFELONG, "fuar")}
    (file,) = tmp_path.rglob("*.jsonl")
    assert len(file.read_text().splitlines()) == 1, "the same is told once"


def test_without_finished_experts_there_are_none(tmp_path: Path) -> None:
    mixed = {"scorers": ["perplexity", "exact-match"]}
    for sequences in (
        [result_of(), reference("joint", JOINT)],
        [result_of(), reference("expert", EXPERT, status="finished, failed")],
        [result_of(status="failed"), reference("expert", EXPERT)],
        [result_of(), reference("expert", EXPERT, seed=2)],
        [result_of(**mixed), reference("expert", EXPERT, **mixed)],
    ):
        add_lifelong(sequences)
        assert "expert" not in sequences[0]
        assert "performance_maintenance" not in sequences[0]
    sequences = [result_of(fuar="no gain")]
    sequences[0]["measured_from"] = None
    record_references(str(tmp_path), sequences)
    assert list(tmp_path.rglob("*.jsonl")) == [], "a word is no metric"


def test_without_points_there_are_those_of_the_matrix() -> None:
    sequences = [result_of(scorers=["perplexity"] * 2), reference("expert", EXPERT, scorers=["perplexity"] * 2)]
    add_lifelong(sequences)
    assert sequences[0]["performance_maintenance"] == 80 - 60, "a fall of perplexity is a gain"
    assert sequences[0]["relative_performance"] is None
