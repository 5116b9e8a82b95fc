"""Linear layers by name: what is one, which are usual, and a weight by its output units."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from methods.shared.linears import (
    adapter_targets,
    by_units,
    is_linear,
    is_transposed,
    replace_module,
    target_linears,
    usual_targets,
)


class Block(nn.Module):
    """Layers under the names that are given, and what is no linear layer."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        for name in names:
            self.add_module(name, nn.Linear(2, 3))
        self.norm = nn.LayerNorm(2)


def model_of(kind: str, *names: str) -> nn.Module:
    """A model of an architecture, whose one block has layers of those names."""
    model = nn.Module()
    model.config = SimpleNamespace(model_type=kind)  # type: ignore[assignment]
    model.block = Block(*names)
    return model


def test_gpt2s_layer_is_linear_with_columns_for_units() -> None:
    assert is_linear(nn.Linear(2, 3))
    assert not is_transposed(nn.Linear(2, 3))
    assert is_linear(Conv1D(3, 2))
    assert is_transposed(Conv1D(3, 2))
    for other in (nn.Embedding(2, 3), nn.LayerNorm(3), nn.Conv1d(2, 3, 1)):
        assert not is_linear(other)


def test_what_is_written_by_units_is_in_the_weight() -> None:
    """d_in 2, d_out 3: the same unit is a row of one and a column of the other."""
    plain = nn.Linear(2, 3)
    transposed = Conv1D(3, 2)
    for layer in (plain, transposed):
        weight = layer.weight.data
        weight.zero_()
        assert by_units(layer, weight).shape == (3, 2)
        by_units(layer, weight)[2] = torch.tensor([5.0, 6.0])
    assert plain.weight.tolist() == [[0, 0], [0, 0], [5, 6]]
    assert transposed.weight.tolist() == [[0, 0, 5], [0, 0, 6]]


@pytest.mark.parametrize(
    ("kind", "names", "expected"),
    [
        # peft's own choice, whatever the layers are called
        ("t5", ("query", "value"), ["q", "v"]),
        ("llama", (), ["q_proj", "v_proj"]),
        ("mine", ("q_proj", "k_proj", "v_proj", "o_proj", "in_proj"), ["q_proj", "v_proj"]),
        ("mine", ("q_lin", "v_lin", "out_lin"), ["q_lin", "v_lin"]),
        ("mine", ("query_key_value", "dense"), ["query_key_value"]),
        ("mine", ("in_proj", "x_proj", "out_proj"), ["in_proj"]),
        # a name is taken as a whole
        ("mine", ("prequery", "value_net", "v"), ["v"]),
    ],
)
def test_adapters_go_to_query_and_value(kind: str, names: tuple[str, ...], expected: list[str]) -> None:
    assert sorted(adapter_targets(model_of(kind, *names))) == expected


def test_where_nothing_is_usual_the_layers_are_named() -> None:
    message = "no usual target modules for a 'mine' model; name them in `targets`"
    with pytest.raises(ValueError) as caught:
        adapter_targets(model_of("mine", "up", "down"))
    assert str(caught.value) == f"{message}, among down, up"
    with pytest.raises(ValueError) as caught:
        usual_targets(model_of("mine"), {"t5": ["wi"]})
    assert str(caught.value) == message
    assert usual_targets(model_of("t5"), {"t5": ["wi", "wo"]}) == ("wi", "wo")
    with pytest.raises(ValueError, match="for a 'unknown' model"):
        model = model_of("t5")
        model.config = SimpleNamespace()  # type: ignore[assignment]
        usual_targets(model, {"t5": ["wi"]})


def test_targets_are_names_or_ends_of_paths() -> None:
    model = model_of("mine", "o", "foo")
    model.add_module("o", nn.Linear(1, 1))
    assert list(target_linears(model, ["o"])) == ["block.o", "o"], "and not foo"
    assert list(target_linears(model, ["block.o"])) == ["block.o"]
    assert list(target_linears(model, ["o", "foo"])) == ["block.o", "block.foo", "o"]
    with pytest.raises(ValueError, match=r"no linear layer is called q or norm; there are foo, o$"):
        target_linears(model, ["q", "norm"])
    with pytest.raises(ValueError, match="there are none"):
        target_linears(model_of("mine"), ["q"])


@pytest.mark.parametrize("name", ["o", "block.foo"])
def test_another_module_takes_the_role_of_one(name: str) -> None:
    model = model_of("mine", "foo")
    model.add_module("o", nn.Linear(1, 1))
    other = nn.Linear(5, 5)
    replace_module(model, name, other)
    assert model.get_submodule(name) is other
    assert [n for n, module in model.named_modules() if module is other] == [name]
