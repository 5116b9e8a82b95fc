"""An adapter for every task: how each starts, which one trains, and that all are added up."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from transformers import DistilBertConfig, DistilBertModel

from methods import Context, generator, trainable
from methods.adapters.adapter_per_task import (
    AdapterPerTask,
    AdapterPerTaskSettings,
    adapters,
    add_adapter,
    grow_adapters,
    lora_layers,
    num_adapters,
)

SETTINGS = AdapterPerTaskSettings(r=2, alpha=6.0, dropout=0.0, targets=("query", "value"))
LAYERS = ("block.query", "block.value")


class Model(nn.Module):
    """Two target layers of width 4, one layer beside them, and a head of two labels."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleDict({"query": nn.Linear(4, 3), "value": nn.Linear(4, 3), "dense": nn.Linear(3, 3)})
        self.head = nn.Linear(3, 2)


def grown(*steps: int, seed: int = 5) -> Model:
    """A prepared model that was brought to those numbers of adapters in turn."""
    torch.manual_seed(0)
    model = Model()
    method = AdapterPerTask(SETTINGS, Context(seed))
    method.prepare(model, list(model.head.parameters()))
    for tasks in steps:
        method.grow(model, tasks)
    return model


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in adapters(model).items()}


def test_before_the_first_task_the_head_alone_trains() -> None:
    model = grown()
    assert list(trainable(model)) == ["head.weight", "head.bias"]
    assert num_adapters(model) == 0


@pytest.mark.parametrize("layer", LAYERS)
def test_an_adapter_starts_as_peft_would_draw_it_but_from_its_own_seed(layer: str) -> None:
    """B = 0, and A uniform in ±1/sqrt(4): twice a draw in [0, 1), less 1, over 2."""
    weights = weights_of(grown(2))
    for task in (0, 1):
        draw = torch.rand(2, 4, generator=generator(5, "lora", layer, task))
        torch.testing.assert_close(weights[f"{layer}.lora_A.{task}.weight"], (2 * draw - 1) / math.sqrt(4))
        assert torch.equal(weights[f"{layer}.lora_B.{task}.weight"], torch.zeros(3, 2))
    assert not torch.equal(
        weights_of(grown(1, seed=6))[f"{layer}.lora_A.0.weight"], weights[f"{layer}.lora_A.0.weight"]
    )


@pytest.mark.parametrize("steps", [(1, 2, 3), (3, 0, 3), (1, 1, 3), (3, 1, 2, 3)])
def test_the_way_to_three_adapters_changes_none_of_them(steps: tuple[int, ...]) -> None:
    once = weights_of(grown(3))
    assert len(once) == 3 * 2 * 2
    again = weights_of(grown(*steps))
    assert again.keys() == once.keys()
    for name, weight in again.items():
        assert torch.equal(weight, once[name]), name


def test_a_model_that_has_trained_more_tasks_loses_the_later_adapters() -> None:
    model = grown(3)
    grow_adapters(model, SETTINGS, 1, seed=5)
    assert num_adapters(model) == 1
    assert {name.split(".")[-2] for name in adapters(model)} == {"0"}
    assert "block.query.lora_A.0.weight" in trainable(model)


def test_only_the_newest_adapter_and_the_head_train_and_a_checkpoint_holds_all() -> None:
    model = grown(1, 2)
    newest = {f"{layer}.lora_{half}.1.weight" for layer in LAYERS for half in "AB"}
    head = {"head.weight", "head.bias"}
    assert set(trainable(model)) == newest | head
    held = set(AdapterPerTask(SETTINGS, Context(5)).weights(model))
    assert held == newest | head | {name.replace(".1.", ".0.") for name in newest}


def test_a_layer_adds_up_all_adapters_scaled() -> None:
    """y = W x + b + alpha / r times the sum of B_i A_i x, with alpha / r = 3."""
    model = grown(3)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in adapters(model).values():
            weight.copy_(torch.randn(weight.shape, generator=rng))
    weights = weights_of(model)
    x = torch.randn(5, 4, generator=rng)
    layers = dict(lora_layers(model))
    assert tuple(layers) == LAYERS
    for name, layer in layers.items():
        expected = x @ layer.base_layer.weight.T + layer.base_layer.bias  # type: ignore[union-attr, operator]
        for task in range(3):
            a = weights[f"{name}.lora_A.{task}.weight"]
            b = weights[f"{name}.lora_B.{task}.weight"]
            expected = expected + 3 * (x @ a.T) @ b.T
        torch.testing.assert_close(layer(x), expected)


def test_a_second_adapter_comes_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    model = grown(1)
    add_adapter(model, SETTINGS, 1, seed=5)
    assert num_adapters(model) == 2
    assert [str(warning.message) for warning in recwarn if "adapter" in str(warning.message)] == []


def test_targets_that_were_found_are_found_again_for_the_next_adapter() -> None:
    """peft knows none for DistilBERT: they are looked for, and then lie beneath the first adapter."""
    sizes = {"dim": 8, "hidden_dim": 8, "n_layers": 1, "n_heads": 2, "vocab_size": 10}
    model = DistilBertModel(DistilBertConfig(**sizes))
    for tasks in (1, 2):
        grow_adapters(model, AdapterPerTaskSettings(r=2, targets=None), tasks, seed=5)
    layers = [name.rpartition(".")[2] for name, _ in lora_layers(model)]
    assert layers == ["q_lin", "v_lin"]
    assert num_adapters(model) == 2
