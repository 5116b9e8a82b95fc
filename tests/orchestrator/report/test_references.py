"""Intransigence beside the reference runs of an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.report.references import add_intransigence, record_references, reference_scores
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
