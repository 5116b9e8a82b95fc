"""Which parameters an optimizer gets, and at which rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from methods import trainable
from orchestrator.training.optimizer import make_optimizer
from orchestrator.training.task import train_task


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


def test_a_tuning_methods_factors_are_on_the_rate_that_all_share(learner_of: Callable[..., Any]) -> None:
    """On `training.lr`, and not on a rate that a user gives a group."""
    learner = learner_of(training={"lr": 0.2, "lrs": {"*.SelfAttention.q.*": 0.5}})
    factors = {name: 0.1 for name in trainable(learner.family.module) if ".SelfAttention." in name}
    optimizer = make_optimizer(learner.family.module, [], learner.sequence.training, rate_factors=factors)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in learner.family.module.named_parameters():
        expected = 0.2
        if ".SelfAttention.q." in name:
            expected = 0.5
        elif ".SelfAttention." in name:
            expected = 0.02
        assert rates[id(parameter)] == pytest.approx(expected), name


@pytest.mark.parametrize(
    ("tuning", "names"),
    [
        ({"name": "l2p", "pool": 6, "picked": 1, "tokens": 2}, ["soft_prompts.prompt", "soft_prompts.key"]),
        ({"name": "progprompt", "tokens": 3}, ["soft_prompts.task.0"]),
        ({"name": "lfpt5", "tokens": 3, "samples": 0}, ["soft_prompts.prompt"]),
    ],
)
def test_prompts_and_keys_without_gradient_stay_as_they_are(
    tuning: dict[str, Any], names: list[str], learner_of: Callable[..., Any]
) -> None:
    """Weight decay at 0.1 would leave 0.37 of what no text picks after a thousand steps at rate 0.01."""
    learner = learner_of(methods=[{"tuning": tuning}], training={"weight_decay": 0.1, "lr": 0.01})
    model = learner.family.module
    learner.stack.grow(model, 1)
    optimizer = make_optimizer(model, [], learner.sequence.training, learner.stack.tuning.without_decay())
    before = {name: p.detach().clone() for name, p in trainable(model).items()}
    assert sorted(before) == sorted(names)
    for p in trainable(model).values():
        p.grad = torch.zeros_like(p)
    for _ in range(3):
        optimizer.step()
    assert all(torch.equal(p, before[name]) for name, p in trainable(model).items())


def test_a_task_is_trained_without_decay_of_unpicked_prompts(learner_of: Callable[..., Any]) -> None:
    tuning = {"name": "l2p", "pool": 12, "picked": 1, "tokens": 2}
    learner = learner_of(
        methods=[{"tuning": tuning}], training={"weight_decay": 0.5, "lr": 0.01}, stream={"max_train": 16}
    )
    before = {name: p.detach().clone() for name, p in trainable(learner.family.module).items()}
    train_task(learner, 0, lambda event: None)
    for name, p in trainable(learner.family.module).items():
        is_kept = (p == before[name]).flatten(1).all(1)
        assert 0 < int(is_kept.sum()) < 12, f"{name}: some were picked, and the others must not move"
