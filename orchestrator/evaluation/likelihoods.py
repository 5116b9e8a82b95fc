"""Scorers that need no answer: how likely the targets are to a model that writes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from orchestrator.evaluation.scorer import Array, ExampleScore, Scorer


@dataclass(frozen=True)
class Likelihood:
    """What a model makes of one target: -log p of its tokens and end together, in nats; their number; the text's bytes."""

    loss: float
    num_tokens: int
    num_bytes: int


class LikelihoodScorer(Scorer):
    """Scores how likely a target is to a model, which answers nothing: no example is right or wrong."""

    better = "lower"
    reads_answers = False

    def shown(self, number: float) -> str:
        return f"{number:.{self.digits}f}"

    def score_likelihood(self, likelihood: Likelihood) -> ExampleScore:
        """The result of one example; its number is the score that it would have alone."""
        addends = self.addends(likelihood)
        return ExampleScore(float(self.combine(addends)), False, addends)

    def addends(self, likelihood: Likelihood) -> Array:
        """What one example adds to the sums."""
        raise NotImplementedError


class Perplexity(LikelihoodScorer):
    """exp(sum of -log p / number of tokens) of the targets' tokens, over all examples of a task together.

    The end of an answer is a token too, as in training. Another tokenizer has other tokens: numbers of two models compare
    only where these have one.
    """

    name = "perplexity"
    series = name
    unit = "perplexity"
    digits = 2

    def addends(self, likelihood: Likelihood) -> Array:
        return np.array([likelihood.loss, float(likelihood.num_tokens)])

    def combine(self, sums: Array) -> Array:
        return np.asarray(np.exp(sums[..., 0] / sums[..., 1]))


class BitsPerByte(LikelihoodScorer):
    """Sum of -log2 p / bytes of the targets' texts (UTF-8), over all examples of a task together.

    The end of an answer costs bits and has no byte. Numbers of models with different tokenizers compare.
    """

    name = "bits-per-byte"
    series = name
    unit = "bits per byte"
    digits = 3

    def addends(self, likelihood: Likelihood) -> Array:
        return np.array([likelihood.loss / math.log(2), float(likelihood.num_bytes)])

    def combine(self, sums: Array) -> Array:
        # an empty target has bits and no byte
        return np.asarray(sums[..., 0] / np.maximum(sums[..., 1], 1))
