"""What is scored instead of the trained weights, part after part."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from methods import Context, Method, ScoredWeights, Settings, Stack
from methods.full import Full, FullSettings


class Doubled(ScoredWeights, Method):
    """Scores twice the weights."""

    def scored(self, model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: 2 * weight for name, weight in weights.items()}


class Raised(ScoredWeights, Method):
    """Scores the weights and one."""

    def scored(self, model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: weight + 1 for name, weight in weights.items()}


def stack(*parts: type[Method]) -> Stack:
    plugins = [(part.__name__, part(Settings(), Context(0))) for part in parts]
    return Stack(Full(FullSettings(), Context(0)), plugins, "full")


def test_each_part_is_given_what_the_one_before_would_score() -> None:
    weights = {"a": torch.tensor([3.0])}
    for parts, expected in (((Doubled, Raised), 7.0), ((Raised, Doubled), 8.0), ((Method, Doubled), 6.0)):
        found = stack(*parts)
        assert found.scores_other_weights
        assert found.scored(nn.Linear(1, 1), weights)["a"].item() == expected
    assert weights["a"].item() == 3.0


def test_without_such_a_part_the_trained_weights_are_scored() -> None:
    weights = {"a": torch.tensor([3.0])}
    assert not stack(Method).scores_other_weights
    assert stack(Method).scored(nn.Linear(1, 1), weights) == weights


def test_whoever_forgets_the_part_is_told() -> None:
    with pytest.raises(TypeError, match="scored is never called unless the class derives from ScoredWeights"):
        type("Forgetful", (Method,), {"scored": Doubled.scored})
