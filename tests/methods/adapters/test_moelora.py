"""MoELoRA: the gate and the layer by hand, what trains, and how experts come."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from methods import trainable
from methods.adapters.moelora import MixtureLayer, MoeLoraSettings, gate
from methods.masking.output_units import maskable_weights
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES
from tests.methods.reference import Adam, assert_near, batches_of, mean_loss


def test_the_gate_by_hand() -> None:
    scores = torch.tensor([[0.0, math.log(3.0), math.log(4.0)]])
    torch.testing.assert_close(gate(scores, None), torch.tensor([[1 / 8, 3 / 8, 4 / 8]]))
    torch.testing.assert_close(gate(scores, 2), torch.tensor([[0.0, 3 / 7, 4 / 7]]))
    assert gate(scores, 1).tolist() == [[0.0, 0.0, 1.0]]
    assert torch.equal(gate(scores, 5), gate(scores, None))


def test_the_layer_by_hand() -> None:
    base = nn.Linear(2, 1, bias=False)
    layer = MixtureLayer(base, MoeLoraSettings(r=1, alpha=2.0, dropout=0.0))
    layer.set_experts(2, "layer", 0)
    x = torch.tensor([1.0, 2.0])
    assert torch.equal(layer(x), base(x)), "new experts change nothing"
    with torch.no_grad():
        base.weight.copy_(torch.tensor([[1.0, 1.0]]))
        for expert, (a, b, router) in enumerate([((1.0, 0.0), 3.0, (0.0, 0.0)), ((0.0, 1.0), 5.0, (math.log(3), 0.0))]):
            layer.lora_A[str(expert)].weight.copy_(torch.tensor([a]))
            layer.lora_B[str(expert)].weight.copy_(torch.tensor([[b]]))
            layer.router[str(expert)].weight.copy_(torch.tensor([router]))
    # gates 1/4 and 3/4; W x = 3; 2 (1/4 · 3 · 1 + 3/4 · 5 · 2) = 16.5
    assert layer(x).item() == pytest.approx(19.5)


def mixture(layer: dict[str, list[Tensor]], x: Tensor, scale: float) -> Tensor:
    """The layer's addition written as the paper's sum, one expert at a time."""
    scores = torch.stack([(x * row).sum(-1) for row in layer["router"]], -1)
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    return scale * sum(weights[..., e, None] * (x @ (layer["B"][e] @ layer["A"][e]).T) for e in range(len(layer["A"])))


@pytest.mark.parametrize("model", FAMILIES)
def test_two_tasks_equal_a_second_implementation(model: str, learner_of: Callable[..., Learner]) -> None:
    moelora = {"name": "moelora", "r": 2, "alpha": 6.0, "dropout": 0.0}
    learner = learner_of(
        model=model, methods=[{"tuning": moelora}], stream={"max_train": 24}, training={"micro_batch": 2}
    )
    module = learner.family.module.double()
    names = [n for n, m in module.named_modules() if isinstance(m, MixtureLayer)]
    plain = copy.deepcopy(module).train()
    state: dict[str, dict[str, list[Tensor]]] = {n: {"A": [], "B": [], "router": []} for n in names}
    for name in names:
        plain.get_submodule(name).register_forward_hook(
            lambda m, x, y, name=name: y + mixture(state[name], x[0], 3.0) if state[name]["A"] else y
        )
    heads = [p for n, p in plain.named_parameters() if "classifier" in n]
    torch.set_default_dtype(torch.float64)
    try:
        for task in (0, 1):
            learner.stack.grow(module, task + 1)
            for name in names:
                layer = module.get_submodule(name)
                for part, source in (("A", layer.lora_A), ("B", layer.lora_B), ("router", layer.router)):
                    state[name][part].append(source[str(task)].weight.detach().clone().requires_grad_())
            parameters = [p for n in names for part in state[n].values() for p in part]
            adam = Adam([*parameters, *heads], 1e-3)
            for batch in batches_of(learner, task):
                gradients = torch.autograd.grad(mean_loss(plain, batch), [*parameters, *heads])
                adam.step(gradients, decayed=len(parameters))
            train_task(learner, task, lambda event: None)
    finally:
        torch.set_default_dtype(torch.float32)
    for name in names:
        layer = module.get_submodule(name)
        for task in (0, 1):
            for part, source in (("A", layer.lora_A), ("B", layer.lora_B), ("router", layer.router)):
                assert_near(source[str(task)].weight, state[name][part][task], f"{name}.{part}.{task}")


@pytest.mark.parametrize("model", FAMILIES)
def test_all_experts_train_and_migu_masks_their_rows(model: str, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model=model, methods=[{"tuning": "moelora", "plugins": ["migu"]}])
    for task in (0, 1):
        train_task(learner, task, lambda event: None)
    module = learner.family.module
    parts = {n.split(".")[-3] + n.split(".")[-2] for n in trainable(module) if "classifier" not in n}
    assert parts == {f"{part}{expert}" for part in ("lora_A", "lora_B", "router") for expert in "01"}
    masked = {".".join(rows.name.split(".")[-2:]) for rows in maskable_weights(module)}
    assert masked == {f"{part}.{expert}" for part in ("lora_A", "lora_B") for expert in "01"}


def test_a_fixed_number_of_experts_is_there_from_the_start(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(methods=[{"tuning": {"name": "moelora", "experts": 3}}])
    layer = next(m for m in learner.family.module.modules() if isinstance(m, MixtureLayer))
    assert len(layer.lora_A) == 3
    learner.stack.grow(learner.family.module, 5)
    assert len(layer.lora_A) == 3
