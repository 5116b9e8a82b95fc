"""How answers are held against their targets."""

from __future__ import annotations

import pytest

from orchestrator.evaluation.scorers import SCORERS, ExactMatch
from streams import SCORER_VERSIONS


@pytest.mark.parametrize(
    ("answer", "target", "correct"),
    [
        (" Very negative.", "very negative", True),
        ("very  NEGATIVE!", "Very negative", True),
        ("very negative good", "very negative", False),
        ("", "very negative", False),
    ],
)
def test_exact_match_compares_after_the_published_normalisation(answer: str, target: str, correct: bool) -> None:
    result = ExactMatch().score_example(answer, target)
    assert result.correct is correct
    assert result.score == (1.0 if correct else 0.0)


def test_exact_match_of_a_task_is_the_share_in_percent() -> None:
    assert ExactMatch().combine([1.0, 0.0, 0.0]) == 100.0 * 1 / 3
    assert ExactMatch().combine([1.0, 1.0]) == 100.0
    assert (ExactMatch().unit, ExactMatch().better) == ("%", "higher")


def test_every_scorer_is_found_by_its_name_and_has_a_version() -> None:
    assert {scorer.name: scorer.version for scorer in SCORERS.values()} == SCORER_VERSIONS


def test_verbatim_keeps_case_and_punctuation() -> None:
    scorer = SCORERS["verbatim"]
    assert scorer.score_example(" C  sharp\n", "C sharp").correct
    for answer in ("c sharp", "C sharp.", "Csharp", ""):
        assert scorer.score_example(answer, "C sharp").score == 0.0
    assert scorer.combine([1.0, 0.0]) == 50.0
