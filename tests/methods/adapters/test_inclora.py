"""IncLoRA: which adapter trains when, and that all are added up."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from methods import trainable
from methods.adapters.adapter_per_task import adapters, lora_layers
from methods.masking.output_units import maskable_weights
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES


@pytest.mark.parametrize("model", FAMILIES)
def test_only_the_newest_adapter_and_a_head_train(model: str, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model=model, methods=["inclora"])
    module = learner.family.module
    assert not adapters(module)
    base = {n.replace(".base_layer", ""): p.detach().clone() for n, p in module.named_parameters()}
    train_task(learner, 0, lambda event: None)
    after_first = {n: p.detach().clone() for n, p in adapters(module).items()}
    train_task(learner, 1, lambda event: None)
    names = {n for n in trainable(module) if "classifier" not in n}
    assert names == {n for n in adapters(module) if n.endswith(".1.weight")}
    assert names
    for name, p in adapters(module).items():
        if name in after_first:
            assert torch.equal(p, after_first[name]), name
        elif "lora_B" in name:
            assert p.abs().max() > 0, name
    for name, p in module.named_parameters():
        if ".lora_" not in name and "classifier" not in name:
            assert torch.equal(p, base[name.replace(".base_layer", "")]), name
    heads = {n for n in learner.weights() if "classifier" in n}
    assert set(learner.weights()) - heads == set(adapters(module))
    assert bool(heads) == (model == "tiny-bert")
    assert heads <= set(trainable(module))


def test_the_layer_is_base_plus_the_sum_of_scaled_products(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(methods=[{"tuning": {"name": "inclora", "r": 4, "alpha": 12.0, "dropout": 0.0}}])
    for task in range(3):
        train_task(learner, task, lambda event: None)
    layer = learner.family.module.encoder.block[0].layer[0].SelfAttention.q
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    expected = x @ layer.base_layer.weight.T
    for task in range(3):
        a, b = layer.lora_A[str(task)].weight, layer.lora_B[str(task)].weight
        assert b.abs().max() > 0
        expected = expected + 12.0 / 4 * (x @ a.T) @ b.T
    torch.testing.assert_close(layer(x), expected)


def test_growing_is_repeatable_and_goes_both_ways(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(methods=["inclora"])
    module, stack = learner.family.module, learner.stack
    stack.grow(module, 3)
    three = {n: p.detach().clone() for n, p in adapters(module).items()}
    assert len({float(p.sum()) for n, p in three.items() if "lora_A" in n}) == len(three) // 2, "two start alike"
    x = torch.ones(1, 32)
    _, layer = next(lora_layers(module))
    assert torch.equal(layer(x), layer.base_layer(x)), "an untrained adapter changes nothing"
    stack.grow(module, 1)
    assert {n.split(".")[-2] for n in adapters(module)} == {"0"}
    stack.grow(module, 0)
    assert not adapters(module)
    stack.grow(module, 3)
    assert all(torch.equal(p, three[n]) for n, p in adapters(module).items())


@pytest.mark.parametrize("model", FAMILIES)
def test_migu_masks_the_new_adapter_alone(model: str, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model=model, methods=["inclora+migu"])
    learner.stack.grow(learner.family.module, 2)
    names = [rows.name for rows in maskable_weights(learner.family.module)]
    assert names
    assert all(name.endswith((".lora_A.1", ".lora_B.1")) for name in names)
