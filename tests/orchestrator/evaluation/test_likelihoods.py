"""Perplexity and bits per byte; `test_scores` holds them against a model's losses."""

from __future__ import annotations

import math

import pytest

from orchestrator.evaluation.likelihoods import BitsPerByte, Likelihood, Perplexity


def test_perplexity_and_bits_per_byte_by_hand() -> None:
    """Two targets: 2 tokens of probability 1/4 each in 3 bytes, and 1 of probability 1/2 in 5 bytes."""
    likelihoods = [Likelihood(2 * math.log(4), 2, 3), Likelihood(math.log(2), 1, 5)]
    perplexity = Perplexity()
    bits = BitsPerByte()
    alone = list(map(perplexity.score_likelihood, likelihoods))
    assert [result.score for result in alone] == pytest.approx([4.0, 2.0])
    # over all tokens together, which is neither mean of the two
    assert perplexity.combined(alone) == pytest.approx((4 * 4 * 2) ** (1 / 3))
    of_bits = list(map(bits.score_likelihood, likelihoods))
    assert [result.score for result in of_bits] == pytest.approx([4 / 3, 1 / 5])
    assert bits.combined(of_bits) == pytest.approx((4 + 1) / 8)
    assert (perplexity.better, bits.better, perplexity.unit) == ("lower", "lower", "perplexity")


def test_numbers_of_single_examples_are_shown_in_their_unit() -> None:
    assert (Perplexity().shown(12.345678), BitsPerByte().shown(1.23456)) == ("12.35", "1.235")
