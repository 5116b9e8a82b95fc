"""What all scorers have in common."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.evaluation.scorer import Scorer, addends_of
from orchestrator.evaluation.scorers import SCORERS, ExactMatch
from streams import Example


class Halves(ExactMatch):
    """Every answer is half right."""

    def number(self, answer: str, example: Example) -> float:
        return 0.5


def test_a_score_is_the_mean_of_the_numbers_in_percent_whoever_is_right() -> None:
    results = [Halves().score_example(answer, Example("", "a")) for answer in ("a", "b", "c")]
    assert [result.correct for result in results] == [True, False, False]
    assert Halves().combined(results) == 50.0
    assert addends_of(results).tolist() == [[0.5, 1.0]] * 3
    assert Halves().shown(0.5) == "50.0"


@pytest.mark.parametrize("scorer", list(SCORERS.values()), ids=list(SCORERS))
def test_many_tasks_are_combined_as_each_alone(scorer: Scorer) -> None:
    """As resamples are, of which all sums come at once."""
    scorer = scorer.of_labels(("a", "b"))
    width = 6 if scorer.name == "macro-f1" else 2
    sums = np.arange(1, 1 + 3 * width).reshape(3, width).astype(float)
    assert scorer.combine(sums).tolist() == [float(scorer.combine(row)) for row in sums]


def test_only_shares_of_right_answers_go_by_accuracy() -> None:
    counting = [name for name, scorer in SCORERS.items() if scorer.counts_right]
    assert counting == ["exact-match", "verbatim", "accuracy", "numeric", "choice"]
    assert [SCORERS[name].series for name in SCORERS if name not in counting] == [
        "macro-f1", "rouge-l", "sari", "edit-similarity", "perplexity", "bits-per-byte", "pass-at-1",
    ]  # fmt: skip
