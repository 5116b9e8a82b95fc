"""Several workers in one process: threads that average as a process group does. And the toy's examples for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from methods import Batch, Context
from methods.base import Example
from tests.methods import toy

T = TypeVar("T")
SIZES = (4, 3, 2)  # examples of each toy task; example i of every task is the toy's row i


def examples(task: int) -> list[Example]:
    """As the stream's."""
    return [{"task": task, "row": row} for row in range(SIZES[task])]


def batches(size: int = 2, rank: int = 0, workers: int = 1) -> Callable[[Sequence[Example]], Iterator[Batch]]:
    """As the learner's: micro-batch i goes to worker i mod workers."""

    def of(chosen: Sequence[Example]) -> Iterator[Batch]:
        for start in range(rank * size, len(chosen), workers * size):
            indices = list(range(start, min(start + size, len(chosen))))
            yield toy.batch(
                [chosen[i]["row"] for i in indices],
                example_indices=indices,
                loss_denominator=len(chosen),
                loss_weight=len(indices) / len(chosen),
            )

    return of


def context(size: int = 2, rank: int = 0, workers: int = 1, **changes: Any) -> Context:
    """One of some workers on the toy."""
    return toy.context(**{"examples": examples, "batches": batches(size, rank, workers), "workers": workers, **changes})


def together(count: int, work: Callable[[Context], T], size: int = 2) -> list[T]:
    """What each of `count` workers gives. Fails where they do not average equally often."""
    barrier, box = threading.Barrier(count, timeout=20), [torch.zeros(())] * count

    def run(rank: int) -> T:
        def mean(tensor: Tensor) -> Tensor:
            box[rank] = tensor.clone()
            barrier.wait()
            found = torch.stack(list(box)).mean(0)
            barrier.wait()
            return found

        return work(context(size, rank, count, mean_over_workers=mean))

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))
