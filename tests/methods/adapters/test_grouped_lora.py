"""A group computes what its models compute, each by the formula written out, and keeps them apart."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods import trainable
from methods.adapters.grouped_lora import LoraGroup
from methods.adapters.lora import LoraSettings, inject_lora

SETTINGS = LoraSettings(r=2, alpha=6.0, dropout=0.5, targets=("query",))


class Toy(nn.Module):
    """tanh(query x) and a head of one linear layer; `scale` is no linear layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(3, 4)
        self.head = nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.head(torch.tanh(self.query(x))) * self.scale)


def toy_models(count: int) -> list[nn.Module]:
    """Models with one base; adapters, and the heads that train too, are drawn for each from another seed."""
    models = []
    for number in range(count):
        torch.manual_seed(0)
        model = inject_lora(Toy(), SETTINGS)
        model.head.requires_grad_(True)  # type: ignore[union-attr]
        torch.manual_seed(1 + number)
        with torch.no_grad():
            for parameter in trainable(model).values():
                parameter.copy_(torch.randn(parameter.shape))
        models.append(model.train())
    return models


def by_hand(model: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """W x + (alpha / r) B A (mask x), through tanh and the head; alpha / r is 3."""
    values = dict(model.named_parameters())
    a, b = values["query.lora_A.default.weight"], values["query.lora_B.default.weight"]
    q = x @ values["query.base_layer.weight"].T + values["query.base_layer.bias"] + 3.0 * (x * mask) @ a.T @ b.T
    return torch.tanh(q) @ values["head.weight"].T + values["head.bias"]


@pytest.fixture
def x_BSI() -> Tensor:
    return torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(9))


def test_each_model_has_its_own_logits_and_gradients(float64: None, x_BSI: Tensor) -> None:
    x_BSI = x_BSI.double()
    models = toy_models(3)
    torch.manual_seed(5)
    logits = LoraGroup(models).logits({"x": x_BSI})
    # one mask for all of them, the one that a model alone draws from that state of the generator
    torch.manual_seed(5)
    mask = F.dropout(torch.ones(4, 5, 3), 0.5)
    assert 0 < int((mask == 0).sum()) < mask.numel()
    assert len(logits) == 3
    losses = []
    for number, own in enumerate(logits):
        torch.testing.assert_close(own, by_hand(models[number], x_BSI, mask))
        losses.append((number + 1) * own.square().mean())
    torch.stack(losses).sum().backward()
    for number, model in enumerate(models):
        parameters = trainable(model)
        assert len(parameters) == 4
        expected = torch.autograd.grad(
            (number + 1) * by_hand(model, x_BSI, mask).square().mean(), list(parameters.values())
        )
        for parameter, gradient in zip(parameters.values(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)


def test_a_model_without_numbers_disturbs_no_other(x_BSI: Tensor) -> None:
    models = toy_models(2)
    nn.init.constant_(dict(models[0].named_parameters())["query.lora_A.default.weight"], float("nan"))
    broken, sound = LoraGroup([model.eval() for model in models]).logits({"x": x_BSI})
    assert broken.isnan().all()
    torch.testing.assert_close(sound, by_hand(models[1], x_BSI, torch.ones(1)))
    (broken.sum() + sound.sum()).backward()
    for parameter in trainable(models[1]).values():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all())


def test_frozen_weights_are_those_of_the_first_model() -> None:
    """No copy is made: what else the group has is registered nowhere in it, and stays the models' own."""
    models = toy_models(2)
    group = LoraGroup(models)
    assert dict(group.module.named_parameters()) == {"scale": models[0].scale}
    assert group.module.get_parameter("scale") is models[0].scale


def test_what_is_no_text_a_row_is_refused(x_BSI: Tensor) -> None:
    models = toy_models(2)
    group = LoraGroup(models)
    group.logits({"x": x_BSI})
    with pytest.raises(ValueError, match="reads 10 rows where there are 8 texts"):
        group.module(torch.zeros(10, 3))


def test_what_trains_outside_of_linear_layers_is_refused() -> None:
    models = toy_models(2)
    for model in models:
        model.scale.requires_grad_(True)  # type: ignore[operator, union-attr]
    with pytest.raises(ValueError, match="'scale' trains, and is no part"):
        LoraGroup(models)
