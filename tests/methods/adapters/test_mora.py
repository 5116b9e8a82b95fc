"""MoRA: the weights and the layer by hand, three tasks of it against a second implementation, and what trains."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from methods import trainable
from methods.adapters.mora import MoraLayer, MoraSettings, self_activation
from methods.masking.output_units import maskable_weights
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES
from tests.methods.reference import Adam, assert_near, batches_of, mean_loss

Z = torch.tensor([[3.0, 4.0, 0.0, -12.0]], dtype=torch.float64)  # of norm 13


def test_the_largest_activations_share_the_weight() -> None:
    weights = self_activation(Z, top_k=2, temperature=1 / 13, threshold=0.0)
    # softmax(3, 4); the activation that is largest in size is negative
    expected = torch.tensor([[1 / (1 + math.e), math.e / (1 + math.e), 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(weights, expected)
    powers = (Z / 13 / 0.5).exp()
    all_of_them = self_activation(Z, top_k=9, temperature=0.5, threshold=0.0)
    torch.testing.assert_close(all_of_them, powers / powers.sum())


def test_the_threshold_takes_weights_away_and_gives_them_to_none() -> None:
    without = self_activation(Z, top_k=2, temperature=1 / 13, threshold=0.0)
    # 3 / 13 = 0.231 and 4 / 13 = 0.308
    assert torch.equal(self_activation(Z, 2, 1 / 13, threshold=0.23), without)
    assert torch.equal(self_activation(Z, 2, 1 / 13, threshold=0.25), without * torch.tensor([0, 1, 0, 0]))
    assert not self_activation(Z, 2, 1 / 13, threshold=0.31).any()


def test_only_the_direction_of_the_activations_counts() -> None:
    torch.testing.assert_close(self_activation(10 * Z, 3, 0.5, 0.2), self_activation(Z, 3, 0.5, 0.2))
    assert torch.isfinite(self_activation(torch.zeros(1, 3), 2, 0.03, 0.0)).all()


def test_weights_are_compared_in_float32() -> None:
    """Under autocast the activations are bfloat16, whose three digits a small temperature would blow up."""
    found = self_activation(Z.bfloat16(), 2, 0.001, 0.0)
    assert found.dtype == torch.float32
    n = (Z.bfloat16().float() / 13)[0]
    torch.testing.assert_close(found[0, 0] / found[0, 1], ((n[0] - n[1]) / 0.001).exp(), rtol=1e-2, atol=0)


def test_the_layer_by_hand() -> None:
    base = nn.Linear(2, 1, bias=False)
    settings = MoraSettings(r=2, alpha=6.0, dropout=0.0, top_k=2, temperature=0.2, threshold=0.7)
    layer = MoraLayer(base, settings)
    x = torch.tensor([[1.0, 1.0]])
    assert torch.equal(layer(x), base(x)), "before the first task it is the base layer"
    layer.set_experts(2, "layer", 0)
    torch.testing.assert_close(layer(x), base(x)), "new experts change nothing"
    with torch.no_grad():
        base.weight.fill_(1.0)
        layer.lora_A["0"].weight.copy_(torch.tensor([[4.0, 0.0], [-2.0, 0.0]]))
        layer.lora_B["0"].weight.copy_(torch.tensor([[1.0, 100.0]]))
        layer.lora_A["1"].weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
        layer.lora_B["1"].weight.copy_(torch.tensor([[5.0, 7.0]]))
    # z = (4, -2, 2, 1) of norm 5, n = (0.8, -0.4, 0.4, 0.2): the first expert of either task acts, by softmax(4, 2)
    large, small = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))
    layer.train()
    torch.testing.assert_close(layer(x).item(), 2 + 3 * (large * 4 * 1 + small * 2 * 5))
    layer.eval()
    # when answering, n = 0.4 is below the threshold
    torch.testing.assert_close(layer(x).item(), 2 + 3 * large * 4 * 1)


def mixture(a: list[Tensor], b: list[Tensor], x: Tensor, k: int, temperature: float, scale: float) -> Tensor:
    """The layer's addition as a sum over single experts, each token's weights found by sorting."""
    rows = torch.cat(a)
    columns = torch.cat(b, dim=1).T
    z = x @ rows.T
    # a padding token's embedding may be zero, where a root has no slope
    n = z / (z.pow(2).sum(-1, keepdim=True) + 1e-200).sqrt()
    powers = (n / temperature).exp()
    kth = n.sort(-1, descending=True).values[..., min(k, len(rows)) - 1, None]
    powers = torch.where(n >= kth, powers, torch.zeros(()))
    weights = powers / powers.sum(-1, keepdim=True)
    total = torch.zeros(())
    for i, column in enumerate(columns):
        total = total + (weights[..., i] * z[..., i])[..., None] * column
    return scale * total


@pytest.mark.parametrize("model", FAMILIES)
def test_three_tasks_equal_a_second_implementation(model: str, learner_of: Callable[..., Learner]) -> None:
    """From the second task on there are more experts than act on a token."""
    mora = {"name": "mora", "r": 2, "alpha": 6.0, "dropout": 0.0, "top_k": 3, "temperature": 0.2}
    learner = learner_of(
        model=model, methods=[{"tuning": mora}], stream={"max_train": 24}, training={"micro_batch": 2, "lr": 1e-2}
    )
    module = learner.family.module.double()
    names = [n for n, m in module.named_modules() if isinstance(m, MoraLayer)]
    plain = copy.deepcopy(module).train()
    a: dict[str, list[Tensor]] = {n: [] for n in names}
    b: dict[str, list[Tensor]] = {n: [] for n in names}
    for name in names:
        plain.get_submodule(name).register_forward_hook(
            lambda m, x, y, name=name: y + mixture(a[name], b[name], x[0], 3, 0.2, 3.0)
        )
    heads = [p for n, p in plain.named_parameters() if "classifier" in n]
    torch.set_default_dtype(torch.float64)
    try:
        for task in range(3):
            learner.stack.grow(module, task + 1)
            for name in names:
                layer = module.get_submodule(name)
                a[name].append(layer.lora_A[str(task)].weight.detach().clone().requires_grad_())
                b[name].append(layer.lora_B[str(task)].weight.detach().clone().requires_grad_())
            new = [m for n in names for m in (a[n][-1], b[n][-1])]
            adam = Adam([*new, *heads], 1e-2)
            for batch in batches_of(learner, task):
                adam.step(torch.autograd.grad(mean_loss(plain, batch), [*new, *heads]), decayed=len(new))
            train_task(learner, task, lambda event: None)
    finally:
        torch.set_default_dtype(torch.float32)
    for name in names:
        layer = module.get_submodule(name)
        for task in range(3):
            assert_near(layer.lora_A[str(task)].weight, a[name][task], f"{name}.A.{task}")
            assert_near(layer.lora_B[str(task)].weight, b[name][task], f"{name}.B.{task}")
    for name, p in zip(["weight", "bias"], heads, strict=False):
        assert_near(module.get_parameter(f"classifier.{name}"), p, name)


def test_only_the_newest_experts_train_and_migu_masks_their_rows(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(methods=[{"tuning": {"name": "mora", "r": 4}, "plugins": ["migu"]}], stream={"max_train": 16})
    module = learner.family.module
    before: dict[str, Tensor] = {}
    for task in range(2):
        train_task(learner, task, lambda event: None)
        assert {n.split(".")[-2] for n in trainable(module)} == {str(task)}
        masked = {".".join(rows.name.split(".")[-2:]) for rows in maskable_weights(module)}
        assert masked == {f"lora_A.{task}", f"lora_B.{task}"}
        after = {n: w.detach().clone() for n, w in learner.weights().items()}
        for name, weight in before.items():
            assert torch.equal(weight, after[name]), "a checkpoint holds the earlier experts, as they were"
        before = after
    assert {n.split(".")[-2] for n in before} == {"0", "1"}
