"""What methods compute beside the training step: passes over a task's examples, and penalties on the weights.

Shapes: N answer tokens (or examples), K columns of the logits (vocabulary or labels).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from methods.base import Context, trainable
from methods.batch import IGNORED, Batch


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout, and without the notice of other methods' forward hooks."""
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)


def answer_logits(batch: Batch, logits: Tensor) -> Tensor:
    """[N, K]: the logits that the loss compares with a label.

    A classifier's are [B, K], one for each example. An encoder-decoder's labels lie beside its logits; a decoder's lie beside
    its input, and the logits at each token are those of the next one.
    """
    labels = batch.labels
    if logits.ndim == 2:
        return logits
    if batch.answer_in_source:
        logits, labels = logits[:, : labels.shape[1] - 1], labels[:, 1:]
    return logits[labels != IGNORED]


def first(batches: Iterable[Batch], samples: int | None) -> Iterator[Batch]:
    """This worker's part of the first `samples` examples of all workers together; None: all."""
    for batch in batches:
        wanted = (
            len(batch.example_indices) if samples is None else sum(place < samples for place in batch.example_indices)
        )
        if not wanted:
            return
        yield batch.select(slice(0, wanted))


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
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    count = torch.zeros((), device=next(iter(sums.values())).device)
    with evaluating(model), torch.enable_grad():
        for batch in first(batches, samples):
            for i in range(len(batch.example_indices)):
                value = objective(batch.select(slice(i, i + 1)))
                gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
                for total, gradient in zip(sums.values(), gradients, strict=True):
                    if gradient is not None:
                        total += of(gradient, value.detach())
                count += 1
    count = context.mean_over_workers(count)
    return {name: context.mean_over_workers(total) / count for name, total in sums.items()}


def copies(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The present values."""
    return {name: p.detach().clone() for name, p in parameters.items()}


def fitted(saved: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Saved tensors on the parameters' device and with as many rows; what is missing is zero.

    A head's rows are the labels of the stream, and a checkpoint may come from a shorter or longer one. Rows that only one of
    them has belong to labels that no task so far has trained.
    """
    return {name: _fit(saved[name], p) for name, p in parameters.items() if name in saved}


def _fit(saved: Tensor, like: Tensor) -> Tensor:
    saved = saved.to(like.device)
    if saved.shape == like.shape:
        return saved
    rows = min(len(saved), len(like))
    fitting = torch.zeros_like(like, requires_grad=False)
    fitting[:rows] = saved[:rows]
    return fitting


def squared_distance(
    parameters: Mapping[str, Tensor], anchor: Mapping[str, Tensor], importance: Mapping[str, Tensor] | None = None
) -> Tensor:
    """sum_i w_i (theta_i - anchor_i)^2 over the parameters that have an anchor; w is 1 without importance."""
    terms = []
    for name, target in anchor.items():
        squares = (parameters[name] - target) ** 2
        terms.append((squares if importance is None else importance[name] * squares).sum())
    return torch.stack(terms).sum()
