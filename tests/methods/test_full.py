"""Full fine-tuning: all parameters train and are kept, and there is nothing to set."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from methods import Context, method_spec, trainable
from methods.full import Full, FullSettings
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES


@pytest.mark.parametrize("model", FAMILIES)
def test_every_parameter_trains_and_is_kept(model: str, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model=model, methods=["ft"], training={"weight_decay": 0.0})
    names = set(dict(learner.family.module.named_parameters()))
    assert set(trainable(learner.family.module)) == set(learner.weights()) == names
    before = {name: weight.detach().clone() for name, weight in learner.weights().items()}
    train_task(learner, 0, lambda event: None)
    moved = [name for name, weight in learner.weights().items() if not torch.equal(weight, before[name])]
    # no text reaches every position, but each kind of layer takes part
    assert len(moved) > 0.9 * len(names)


def test_it_gives_the_model_itself() -> None:
    model = torch.nn.Linear(2, 1)
    assert Full(FullSettings(), Context(0)).prepare(model, []) is model
    assert all(weight.requires_grad for weight in model.parameters())


def test_it_has_no_settings() -> None:
    assert method_spec("ft").tuning.settings == {}
    with pytest.raises(ValueError, match="full: unknown key 'r'"):
        method_spec({"tuning": {"name": "full", "r": 8}})
