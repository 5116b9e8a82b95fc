"""A frozen linear layer in 8 and 4 bits, against the formulas of its codes; what it keeps, and what it depends on."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from methods.shared.quantised import (
    QuantisedLinear,
    can_be_quantised,
    check_installed,
    codes_of,
    quantise,
    written_out,
)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)

# d_out, d_in: rows that are whole blocks of 64, parts of one, and neither; and a last block that is not full
SHAPES = [(3, 128), (64, 32), (48, 80), (10, 96), (5, 6)]


def code_book() -> Tensor:
    """The 16 values of NF4, as appendix E of arXiv 2305.14314 says: quantiles of a normal distribution, zero among them."""
    offset = 0.5 * ((1 - 1 / 32) + (1 - 1 / 30))
    positive = norm.ppf(np.linspace(offset, 0.5, 9)[:-1])
    negative = -norm.ppf(np.linspace(offset, 0.5, 8)[:-1])
    values = np.sort(np.concatenate([positive, [0.0], negative]))
    return torch.tensor(values / np.abs(values).max())


def rounded(weight: Tensor, kind: str) -> Tensor:
    """What the codes of a weight stand for, in float64."""
    if kind == "int8":
        # in float32: in float64 an entry that lies halfway between two codes goes to the other one
        weight = weight.to(torch.float16).float()
        largest = weight.abs().amax(1, keepdim=True)
        return torch.round(weight * (127 / largest)).double() * largest.double() / 127
    flat = weight.double().flatten()
    values = code_book()
    result = torch.empty_like(flat)
    for start in range(0, len(flat), 64):
        block = flat[start : start + 64]
        largest = block.abs().max()
        nearest = (block[:, None] / largest - values).abs().argmin(1)
        result[start : start + 64] = values[nearest] * largest
    return result.view_as(weight)


def layer(shape: tuple[int, int], kind: str, seed: int = 0) -> tuple[nn.Linear, Tensor]:
    """A quantised layer, and its weight before."""
    torch.manual_seed(seed)
    linear = nn.Linear(shape[1], shape[0])
    weight = linear.weight.detach().clone()
    linear.requires_grad_(False)
    quantise(linear, kind)
    return linear, weight


@pytest.mark.parametrize("kind", ["int8", "nf4"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_output_and_the_gradient_by_the_formula(shape: tuple[int, int], kind: str) -> None:
    linear, weight = layer(shape, kind)
    expected = rounded(weight, kind)
    assert not torch.allclose(expected, weight.double(), atol=1e-5), "nothing was rounded"
    x = torch.randn(2, 3, shape[1], requires_grad=True)
    y = linear(x)
    by_hand = x.detach().double() @ expected.T + linear.bias.double()
    torch.testing.assert_close(y.double(), by_hand, rtol=1e-5, atol=1e-5)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    assert x.grad is not None
    torch.testing.assert_close(x.grad.double(), gradient.double() @ expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_autocast_computes_in_its_type(kind: str) -> None:
    linear, weight = layer((48, 80), kind)
    x = torch.randn(4, 80, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = linear(x)
    assert y.dtype == torch.bfloat16
    expected = x.detach().double() @ rounded(weight, kind).T + linear.bias.double()
    torch.testing.assert_close(y.double(), expected, rtol=0.02, atol=0.02)
    y.sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.float32


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_the_mode_and_the_other_texts_change_nothing(kind: str) -> None:
    """bitsandbytes' own layers take an outlier of one text for one of all, and compute in evaluation what training does not."""
    linear, _ = layer((48, 80), kind)
    x = torch.randn(3, 80)
    y = linear(x)
    linear.eval()
    with torch.no_grad():
        assert torch.equal(linear(x), y)
        x[2] *= 100
        torch.testing.assert_close(linear(x)[:2], y[:2], rtol=1e-6, atol=1e-6)
    linear.train()
    again = torch.randn(3, 80, requires_grad=True)
    linear(again).sum().backward()
    assert again.grad is not None and bool(again.grad.abs().sum() > 0)


@pytest.mark.parametrize(("kind", "num_bytes"), [("int8", 512 * 256 + 4 * 512), ("nf4", 512 * 256 // 2 + 4 * 512 * 4)])
def test_what_stays_in_memory_is_codes_and_scales(kind: str, num_bytes: int) -> None:
    """A scale in float32 for each row, or for each 64 entries; between the passes the same, and no weight in float32."""
    linear, _ = layer((512, 256), kind)
    held = 0
    for name, parameter in linear.named_parameters():
        assert not parameter.requires_grad
        if name != "bias":
            held += parameter.numel() * parameter.element_size()
    assert held == num_bytes
    kept = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        linear(torch.randn(2, 256, requires_grad=True))
    assert sum(kept) == num_bytes


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_without_values_there_is_the_same_room(kind: str) -> None:
    for shape in SHAPES:
        weight = torch.randn(shape)
        made = codes_of(weight, kind)
        room = codes_of(weight.to("meta"), kind)
        for tensor, empty in zip(made, room, strict=True):
            assert empty.is_meta
            assert (tensor.shape, tensor.dtype) == (empty.shape, empty.dtype)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_other_types_are_written_out_too(kind: str) -> None:
    weight = torch.randn(6, 32)
    codes, scale = codes_of(weight.double(), kind)
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        found = written_out(codes, scale, weight.shape, dtype)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), rounded(weight, kind), rtol=0.01, atol=0.01)


def test_a_transposed_layer_is_turned() -> None:
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    transposed = Conv1D(6, 64)
    weight = transposed.weight.detach().clone()
    transposed.requires_grad_(False)
    transposed.bias.data.normal_()
    assert can_be_quantised(transposed)
    before: Any = transposed
    quantise(transposed, "nf4")
    assert before is transposed and isinstance(before, QuantisedLinear)
    assert (before.in_features, before.out_features) == (64, 6)
    x = torch.randn(2, 64)
    expected = x.double() @ rounded(weight.T.contiguous(), "nf4").T + before.bias.double()
    torch.testing.assert_close(before(x).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_compiled_layer_gives_the_same() -> None:
    """The compiler believes the shapes that the kernels announce."""
    linear, _ = layer((48, 80), "nf4")
    x = torch.randn(3, 80, requires_grad=True)
    results = []
    for called in (linear, torch.compile(linear)):
        x.grad = None
        y = called(x)
        y.square().sum().backward()
        assert x.grad is not None
        results.append((y.detach(), x.grad.clone()))
    for plain, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-5)


def test_only_plain_frozen_layers_can_be() -> None:
    class Own(nn.Linear):
        """A layer that may read its weight otherwise."""

    frozen = nn.Linear(2, 2).requires_grad_(False)
    assert can_be_quantised(frozen)
    assert not can_be_quantised(nn.Linear(2, 2))
    assert not can_be_quantised(Own(2, 2).requires_grad_(False))
    assert not can_be_quantised(nn.LayerNorm(2).requires_grad_(False))
    quantise(frozen, "int8")
    assert not can_be_quantised(frozen), "it is already"


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed("nf4")
    # importing it raises then, and looking for it finds nothing
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    check_installed("bf16")
    with pytest.raises(
        ValueError, match=r"^model.base: 'int8' needs bitsandbytes: pip install '[a-z-]*\[quantised\]'$"
    ):
        check_installed("int8")
