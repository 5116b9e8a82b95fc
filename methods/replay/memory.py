"""The memory of earlier tasks' examples: which are kept, draws from them, and gradients on what was drawn.

No example is stored: which are kept is a seeded choice that never changes, and they are read again from the stream.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from methods.base import Context, Example, generator, trainable
from methods.shared.exchange import as_one
from methods.shared.passes import evaluating
from methods.shared.shards import total

T = TypeVar("T")


def draw(items: Sequence[T], count: int, *seed: object) -> list[T]:
    """`count` items at random: each once before any comes again."""
    drawn: list[T] = []
    while items and len(drawn) < count:
        # each round through all items has an order of its own
        order = torch.randperm(len(items), generator=generator(*seed, len(drawn)))
        for i in order[: count - len(drawn)]:
            drawn.append(items[int(i)])
    return drawn


def kept(seed: int, task_id: int, examples: Sequence[Example], fraction: float) -> list[Example]:
    """The share of a task that is kept. The same for every method of a sequence."""
    return draw(examples, kept_count(len(examples), fraction), seed, "kept", task_id)


def kept_count(examples: int, fraction: float) -> int:
    """fraction x size, rounded up: of a small task at least one."""
    return math.ceil(fraction * examples - 1e-9)


def remembered(context: Context, task_id: int, fraction: float) -> list[Example]:
    """What is kept of all tasks before `task_id`, the first task's first."""
    found: list[Example] = []
    for task in range(task_id):
        found.extend(kept(context.seed, task, context.examples(task), fraction))
    return found


def remembered_count(context: Context, task_id: int, fraction: float) -> int:
    """How many `remembered` gives."""
    count = 0
    for task in range(task_id):
        count += kept_count(len(context.examples(task)), fraction)
    return count


def losses(context: Context, model: nn.Module, examples: Sequence[Example]) -> Iterator[Tensor]:
    """The mean loss over examples as shares, one for each of this worker's micro-batches."""
    for batch in context.batches(examples):
        yield context.forward(model, batch)[0] / batch.loss_denominator


def gradient_of(context: Context, model: nn.Module, shares: Iterable[Tensor]) -> dict[str, Tensor]:
    """The gradient of the sum of all workers' shares with respect to each trained parameter; no `.grad` is touched.

    `shares` is run through in evaluation mode, so one that makes each share when it is asked for holds one graph at a time.
    Every worker must call this, also one that has no share. Zero where nothing depends on a parameter.
    """
    parameters = trainable(model)
    values = list(parameters.values())
    sums = [torch.zeros_like(value) for value in values]
    with evaluating(model), torch.enable_grad():
        for share in shares:
            for sum_, gradient in zip(sums, context.gradients(share, values), strict=True):
                if gradient is not None:
                    sum_ += gradient
    # the shares are already divided by what all workers have together, so their gradients add up
    return dict(zip(parameters, as_one(sums, context.sum_over_workers), strict=True))


@torch.no_grad()
def add_to_gradients(model: nn.Module, extra: Mapping[str, Tensor], factor: float = 1.0) -> None:
    """grad += factor x extra. A parameter without gradient gets one only where there is something to add."""
    for name, p in trainable(model).items():
        if p.grad is not None:
            p.grad.add_(extra[name], alpha=factor)
        # of all workers' parts of it: one that went on without a gradient would not decay its part
        elif total([extra[name].ne(0)]) > 0:
            p.grad = factor * extra[name]
