"""Linear layers that compute the weight gradient of some output units alone: what a mask would remove is never made.

Of the three matrix products of a linear layer (y = x W^T, dL/dx = dL/dy W, dL/dW = dL/dy^T x) the last one shrinks to the
rows of the kept units. Shapes: x [..., d_in], weight [d_out, d_in], K kept units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from methods.masking.output_units import MaskableWeight
from methods.shared.exchange import as_one


class RowSparseLayer:
    """A linear layer whose next backward pass computes the gradient of `kept` [K] units; of all where that is None.

    It acts on forward passes in training mode while it is `active`. What it leaves in the weight's gradient is what the
    layer itself leaves, up to rounding, and zero in the rows of all other units.
    """

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer
        self.kept: Tensor | None = None
        self.active = False
        # in place of the class's own: a hook may look at what a layer computes, and not change how
        layer.forward = self._forward  # type: ignore[method-assign, assignment]

    def _forward(self, x: Tensor) -> Tensor:
        # methods' own passes run in evaluation mode
        if self.active and self.layer.training:
            y: Tensor = _RowSparseLinear.apply(x, self.layer.weight, self.layer.bias, self)
            return y
        return F.linear(x, self.layer.weight, self.layer.bias)

    def close(self) -> None:
        """Give the layer its own forward pass back."""
        del self.layer.forward


def exchange_rows(layers: Sequence[RowSparseLayer], mean_over_workers: Callable[[Tensor], Tensor]) -> None:
    """Average the layers' weight gradients over workers: the rows of kept units alone travel, all layers' as one vector.

    Where the step computed whole gradients, they travel whole. The units that are kept are the same on every worker.
    """
    gradients = []
    rows = []
    for layer in layers:
        gradient = layer.layer.weight.grad
        assert gradient is not None
        gradients.append(gradient)
        rows.append(gradient if layer.kept is None else gradient.index_select(0, layer.kept))
    for layer, gradient, average in zip(layers, gradients, as_one(rows, mean_over_workers), strict=True):
        if layer.kept is None:
            gradient.copy_(average)
        else:
            gradient.index_copy_(0, layer.kept, average)


def row_sparse_layers(weights: Sequence[MaskableWeight]) -> list[RowSparseLayer]:
    """A row-sparse layer for each weight; none where one of them is not torch's own linear layer."""
    layers = []
    for maskable in weights:
        # a class that derives from it may have another forward pass
        if type(maskable.owner) is not nn.Linear:
            return []
        layers.append(maskable.owner)
    return list(map(RowSparseLayer, layers))


class _RowSparseLinear(torch.autograd.Function):
    """y = x W^T + b; its backward pass computes the rows of dL/dW that `units.kept` names by then."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, units: RowSparseLayer) -> Tensor:
        kind = x.device.type
        ctx.units = units
        ctx.types = (x.dtype, weight.dtype)
        # cast here, so that both passes multiply in the type that autocast would choose
        if torch.is_autocast_enabled(kind):
            compute_type = torch.get_autocast_dtype(kind)
            x = x.to(compute_type)
            weight = weight.to(compute_type)
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        x_type, weight_type = ctx.types
        dy_No = dy.reshape(-1, dy.shape[-1])
        dx = d_weight = d_bias = None
        if ctx.needs_input_grad[0]:
            dx = (dy_No @ weight).view_as(x).to(x_type)
        if ctx.needs_input_grad[1]:
            d_weight = _weight_gradient(dy_No, x.reshape(-1, x.shape[-1]), ctx.units.kept).to(weight_type)
        if ctx.needs_input_grad[2]:
            d_bias = dy_No.sum(0)
        return dx, d_weight, d_bias, None


def _weight_gradient(dy_No: Tensor, x_Ni: Tensor, kept: Tensor | None) -> Tensor:
    """[d_out, d_in] from N tokens: dy^T x in the rows of the kept units, zero in the others."""
    if kept is None:
        return dy_No.T @ x_Ni
    gradient = x_Ni.new_zeros(dy_No.shape[1], x_Ni.shape[1])
    return gradient.index_copy_(0, kept, dy_No.index_select(1, kept).T @ x_Ni)
