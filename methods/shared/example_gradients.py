"""Gradients of single examples, for methods that measure how important each weight is."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from methods.base import Context
from methods.batch import Batch
from methods.shared.passes import evaluating, first
from methods.shared.tensors import trainable


def mean_over_examples(
    context: Context,
    model: nn.Module,
    batches: Iterable[Batch],
    samples: int | None,
    objective: Callable[[Batch], Tensor],
    of: Callable[[Tensor, Tensor], Tensor],
) -> dict[str, Tensor]:
    """The mean over examples of `of(gradient, value)` for each trained parameter, where value = objective(example).

    Every example is differentiated alone: the mean of a function of gradients is not that function of the mean gradient.
    """
    parameters = trainable(model)
    sums = {}
    for name, parameter in parameters.items():
        sums[name] = torch.zeros_like(parameter)
    # a tensor, as workers exchange nothing else
    count = torch.zeros((), device=next(iter(sums.values())).device)
    with evaluating(model), torch.enable_grad():
        for batch in first(batches, samples):
            for i in range(len(batch.example_indices)):
                # a slice, so that the tensors keep their first axis
                value = objective(batch.select(slice(i, i + 1)))
                # unused: a head's parameters where the objective does not look at it
                gradients = context.gradients(value, list(parameters.values()))
                for total, gradient in zip(sums.values(), gradients, strict=True):
                    if gradient is not None:
                        total += of(gradient, value.detach())
                count += 1
    # workers have different numbers of examples: the mean is that of the sums over that of the counts
    count = context.mean_over_workers(count)
    means = {}
    for name, total in sums.items():
        means[name] = context.mean_over_workers(total) / count
    return means
