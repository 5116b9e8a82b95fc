"""LoRA by peft: what trains, and that the adapter is the published formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from methods import trainable
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES


@pytest.mark.parametrize("model", FAMILIES)
def test_only_the_adapter_and_a_head_train(model: str, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model=model, methods=["lora"])
    before = {n: p.detach().clone() for n, p in learner.family.module.named_parameters()}
    train_task(learner, 0, lambda event: None)
    allowed = ("lora_A", "lora_B", "classifier")
    names = trainable(learner.family.module)
    assert [n for n in names if "lora_A" in n]
    assert [n for n in names if "lora_B" in n]
    assert all(any(a in n for a in allowed) for n in names)
    # a generating model has no head, and its vocabulary stays as it is
    assert any("classifier" in n for n in names) == (model == "tiny-bert")
    for name, p in learner.family.module.named_parameters():
        if "lora_B" in name or "classifier" in name:
            assert not torch.equal(p, before[name])
        elif name not in names:
            assert torch.equal(p, before[name])


def test_the_layer_is_base_plus_scaled_product(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(methods=[{"tuning": {"name": "lora", "r": 4, "alpha": 12.0, "dropout": 0.0}}])
    train_task(learner, 0, lambda event: None)
    layer = learner.family.module.encoder.block[0].layer[0].SelfAttention.q
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert b.abs().max() > 0
    torch.testing.assert_close(layer(x), x @ layer.base_layer.weight.T + 12.0 / 4 * (x @ a.T) @ b.T)
