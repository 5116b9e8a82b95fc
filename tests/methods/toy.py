"""A softmax regression that can be differentiated by hand: p = softmax(W x), d(-log p_y)/dW = (p - e_y) x^T."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods import Batch, Context, Method, TokenStream


class Toy(nn.Module):
    """Two inputs, `classes` labels, float64."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.double())

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weight.T


def forward(model: Callable[..., Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
    """As a family's."""
    logits = model(inputs=batch.source.ids)
    return F.cross_entropy(logits, batch.labels, reduction="sum"), logits


def context(**changes: Any) -> Context:
    """One worker."""
    return Context(**{"seed": 0, "forward": forward, **changes})


WEIGHT = torch.tensor([[0.3, -0.2], [0.1, 0.4], [-0.5, 0.2]])
INPUTS = torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.5, 0.5], [2.0, -1.0]]).double()
LABELS = torch.tensor([0, 2, 1, 1])


def batch(examples: slice | list[int] = slice(None), **changes: Any) -> Batch:
    """Some of the four examples; an example's two inputs stand where its tokens would."""
    inputs = INPUTS[examples]
    source = TokenStream(inputs, torch.ones(inputs.shape, dtype=torch.long))
    return Batch(source=source, labels=LABELS[examples], classes=LABELS[examples]).replace(**changes)


def batch_with_mask(mask: Tensor) -> Batch:
    """A batch of texts whose real tokens the mask [B, S] marks."""
    zeros = torch.zeros(len(mask), dtype=torch.long)
    return Batch(source=TokenStream(torch.zeros_like(mask), mask), labels=zeros, classes=zeros)


def batches(size: int = 2, first: int = 0, step: int = 1) -> Iterator[Batch]:
    """The four examples in micro-batches: those of worker `first` of `step`."""
    for start in range(first * size, 4, step * size):
        yield batch(slice(start, start + size), example_indices=list(range(4))[start : start + size])


def gradients(weight: Tensor) -> list[Tensor]:
    """By hand: each example's gradient of -log p_y with respect to W."""
    found = []
    for x, y in zip(INPUTS, LABELS.tolist(), strict=True):
        scores = [sum(w * v for w, v in zip(row, x.tolist(), strict=True)) for row in weight.tolist()]
        powers = [torch.tensor(s).double().exp() for s in scores]
        p = torch.stack(powers) / torch.stack(powers).sum()
        p[y] -= 1
        found.append(p[:, None] * x[None, :])
    return found


def gradient_of_the_penalty(method: Method, model: Toy, shares: list[float]) -> Tensor:
    """What a step whose loss is zero leaves in the weight's gradient, with micro-batches of these shares of it."""
    method.before_step(model, [batch(loss_weight=share) for share in shares])
    for share in shares:
        zero = 0.0 * model.weight.sum()
        method.after_forward(model, batch(loss_weight=share), torch.zeros(1), zero).backward()
    method.add_gradients(model)
    gradient = model.weight.grad
    assert gradient is not None
    model.weight.grad = None
    return gradient


def assert_close(a: Tensor, b: Tensor, rtol: float = 1e-6) -> None:
    torch.testing.assert_close(a, b, rtol=rtol, atol=1e-12, check_dtype=False)
