"""A frozen linear layer whose weight is kept in 8 or 4 bits an entry, in the formats of bitsandbytes.

Shapes: x [..., d_in], W [d_out, d_in].
"""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

import torch
from torch import Tensor, nn

from methods.shared.linears import by_units, is_transposed

# Entries that share a scale in 4 bits, as in QLoRA
BLOCK = 64
KINDS = ("int8", "nf4")
# What the kernels write; any other type is made of float32
_WRITTEN = (torch.float32, torch.bfloat16, torch.float16)


def check_installed(base: str) -> None:
    """Raises ValueError where a base of that type needs a package that is not there."""
    if base in KINDS and importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(f"model.base: {base!r} needs bitsandbytes: pip install 'continual-orchestrator[quantised]'")


def codes_of(weight: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """(codes in int8, scales in float32) of a weight [d_out, d_in].

    int8: row r is round(127 W_r / s_r), with the scale s_r = max |W_r|. nf4: each 64 entries, row after row, divided by their
    largest size, are the nearest of 16 values, two to a byte. Without values only room is made for them.
    """
    if weight.is_meta:
        if kind == "int8":
            return _room(weight.shape), torch.empty(len(weight), device="meta")
        return _room((-(-weight.numel() // 2), 1)), torch.empty(-(-weight.numel() // BLOCK), device="meta")
    check_installed(kind)
    # it says on the screen which faster kernels it could have
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from bitsandbytes.functional import int8_vectorwise_quant, quantize_4bit

    if kind == "int8":
        # the kernel reads float16 alone
        codes, scale, _ = int8_vectorwise_quant(weight.to(torch.float16))
        return codes, scale
    if weight.dtype not in _WRITTEN:
        weight = weight.float()
    packed, state = quantize_4bit(weight.contiguous(), blocksize=BLOCK, compress_statistics=False, quant_type="nf4")
    # transformers' T5 casts its states to the type of a weight, unless that is int8
    return packed.view(torch.int8), state.absmax


def _room(shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=torch.int8, device="meta")


def written_out(codes: Tensor, scale: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """The weight [d_out, d_in] that codes and scales stand for."""
    if codes.shape == shape:
        return codes.to(dtype).mul_((scale / 127).unsqueeze(1))
    from bitsandbytes.functional import QuantState, dequantize_4bit

    written = dtype
    if dtype not in _WRITTEN:
        written = torch.float32
    # as one row: by the weight's shape, the kernel for CPUs is wrong where a row is no whole number of blocks
    row = torch.Size([1, shape.numel()])
    state = QuantState(absmax=scale, shape=row, dtype=written, blocksize=BLOCK, quant_type="nf4")
    entries: Tensor = dequantize_4bit(codes.view(torch.uint8), state)
    return entries.reshape(shape).to(dtype)


class _Product(torch.autograd.Function):
    """x W^T. The weight is written out for each pass: kept between the passes it would take its whole memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scale: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(codes, scale)
        ctx.shape = shape
        return x @ written_out(codes, scale, shape, x.dtype).T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        codes, scale = ctx.saved_tensors
        return gradient @ written_out(codes, scale, ctx.shape, gradient.dtype), None, None, None


class QuantisedLinear(nn.Linear):
    """y = W x + b with a frozen W of which `weight` holds the codes, and `scale` what they are multiples of.

    Not a layer of bitsandbytes, though in its formats: those round x too in 8 bits, by the largest values of a whole
    micro-batch, and they compute otherwise in evaluation than in training, after which the one in 4 bits passes no gradient on
    some CPUs. Here W alone is rounded, so that a text's answer depends on no other text, mode or device.
    """

    scale: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        # else the weight would be written out in float32 first, and rounded then
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        shape = torch.Size([self.out_features, self.in_features])
        product: Tensor = _Product.apply(x, self.weight, self.scale, shape)
        if self.bias is not None:
            product = product + self.bias.to(product.dtype)
        return product


def can_be_quantised(module: nn.Module) -> bool:
    """Whether a module is a plain linear layer with a frozen weight."""
    # a subclass may read its weight in another way
    if type(module) is not nn.Linear and not is_transposed(module):
        return False
    return not module.weight.requires_grad


@torch.no_grad()
def quantise(linear: nn.Module, kind: str) -> None:
    """Make a `QuantisedLinear` of a linear layer, in place: a method may have hooks on it, or know it by itself."""
    weight: Any = linear.weight
    weight = by_units(linear, weight.detach())
    codes, scale = codes_of(weight, kind)
    linear.__class__ = QuantisedLinear
    linear.out_features, linear.in_features = weight.shape
    linear.weight = nn.Parameter(codes, requires_grad=False)
    linear.scale = nn.Parameter(scale, requires_grad=False)
