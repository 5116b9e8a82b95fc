"""Bootstrap intervals against a plain loop with draws of its own, and against the normal approximation of a share."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from orchestrator.evaluation.intervals import bootstrap_interval
from orchestrator.evaluation.likelihoods import Likelihood, LikelihoodScorer
from orchestrator.evaluation.scorer import ExampleScore, addends_of
from orchestrator.evaluation.scorers import SCORERS
from streams import Example


def percentiles(scores: list[float]) -> tuple[float, float]:
    ordered = sorted(scores)
    return ordered[round(0.025 * len(ordered))], ordered[round(0.975 * len(ordered))]


def answered(name: str, pairs: list[tuple[str, str]], labels: tuple[str, ...] = ()) -> list[ExampleScore]:
    scorer = SCORERS[name].of_labels(labels)
    return [scorer.score_example(answer, Example("", target)) for answer, target in pairs]


def test_a_share_has_the_interval_of_the_normal_approximation() -> None:
    results = answered("exact-match", [("a", "a")] * 120 + [("b", "a")] * 280)
    low, high = bootstrap_interval(SCORERS["exact-match"], addends_of(results)) or (0, 0)
    deviation = 100 * math.sqrt(0.3 * 0.7 / 400)
    assert (low, high) == (pytest.approx(30 - 1.96 * deviation, abs=0.7), pytest.approx(30 + 1.96 * deviation, abs=0.7))
    assert bootstrap_interval(SCORERS["exact-match"], addends_of(results)) == (low, high), "the seed is fixed"


def test_macro_f1_is_taken_anew_of_each_resample() -> None:
    pairs = [("a", "a")] * 40 + [("a", "b")] * 10 + [("b", "b")] * 10 + [("x", "b")] * 5
    scorer = SCORERS["macro-f1"].of_labels(("a", "b", "c"))
    interval = bootstrap_interval(scorer, addends_of(answered("macro-f1", pairs, ("a", "b", "c"))))
    draw = random.Random(1)
    scores = []
    for _ in range(4000):
        drawn = [draw.choice(pairs) for _ in pairs]
        f1 = {}
        for label in ("a", "b"):
            right = sum(answer == target == label for answer, target in drawn)
            named = sum((answer == label) + (target == label) for answer, target in drawn)
            f1[label] = 2 * right / named
        scores.append(100 * sum(f1.values()) / 2)
    assert interval == pytest.approx(percentiles(scores), abs=1.5)


def test_perplexity_is_taken_of_the_tokens_of_each_resample() -> None:
    draw = random.Random(2)
    likelihoods = [Likelihood(draw.uniform(1, 9), draw.randint(1, 6), 5) for _ in range(50)]
    scorer = SCORERS["perplexity"]
    assert isinstance(scorer, LikelihoodScorer)
    interval = bootstrap_interval(scorer, addends_of(map(scorer.score_likelihood, likelihoods)))
    scores = []
    for _ in range(4000):
        drawn = [draw.choice(likelihoods) for _ in likelihoods]
        scores.append(math.exp(sum(x.loss for x in drawn) / sum(x.num_tokens for x in drawn)))
    assert interval == pytest.approx(percentiles(scores), rel=0.04)


def test_one_example_has_no_interval_and_equal_ones_a_point() -> None:
    assert bootstrap_interval(SCORERS["sari"], np.array([[0.5, 1.0]])) is None
    assert bootstrap_interval(SCORERS["sari"], np.array([[0.5, 1.0]] * 3)) == (50.0, 50.0)
