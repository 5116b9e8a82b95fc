"""Which parameters an optimizer gets, and at which rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.training.optimizer import make_optimizer


def test_learning_rates_of_parameter_groups(sequence_of: Callable[..., Any], learner_of: Callable[..., Any]) -> None:
    learner = learner_of(training={"lrs": {"*.SelfAttention.*": 0.5, "shared*": 0.25}})
    training = learner.sequence.training
    optimizer = make_optimizer(learner.family.module, [], training)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in learner.family.module.named_parameters():
        expected = 0.5 if ".SelfAttention." in name else 0.25 if name.startswith("shared") else training.lr
        assert rates[id(parameter)] == expected, name
    assert sequence_of(training={"lrs": {"shared*": 0.1}}).keys[1] != sequence_of().keys[1]
    with pytest.raises(ValueError, match="'nowhere' matches no parameter"):
        make_optimizer(learner.family.module, [], training.model_copy(update={"lrs": {"nowhere": 1.0}}))
