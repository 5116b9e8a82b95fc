"""Which examples make which step: pure functions of (seed, task, epoch), whatever the number of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from methods import generator

T = TypeVar("T")


def steps_in_epoch(examples: int, global_batch: int) -> int:
    """ceil(examples / global_batch)."""
    return -(-examples // global_batch)


def global_batches(examples: int, global_batch: int, seed: int, task: int, epoch: int) -> Iterator[list[int]]:
    """The indices of every step of an epoch: a seeded permutation, cut into batches of exactly `global_batch`.

    The last batch is filled up from the start of the same permutation, so that each example is seen at least once.
    """
    order = torch.randperm(examples, generator=generator(seed, "order", task, epoch)).tolist()
    for step in range(steps_in_epoch(examples, global_batch)):
        first = step * global_batch
        # The remainder also serves a batch that is larger than the task: it goes round more than once
        yield [order[position % examples] for position in range(first, first + global_batch)]


def cut_by_length(batch: Sequence[T], size: int, length: Callable[[T], int]) -> list[T]:
    """A global batch in the order in which it is cut into micro-batches: by length where there are several of them.

    Texts of like length are read together, so that little of a micro-batch is padding. The order does not depend on the
    workers either; of equally long ones the first comes first.
    """
    if len(batch) <= size:
        return list(batch)
    return sorted(batch, key=length)


def micro_batches(batch: Sequence[T], size: int, rank: int, workers: int) -> list[tuple[int, list[T]]]:
    """This worker's micro-batches of a global batch, each with its index among those of all workers.

    The cut depends on `size` alone and micro-batch i goes to worker i mod workers. So with a fixed size every worker count
    computes the same micro-batches, padding and (seeded by the index) dropout included.
    """
    mine = []
    for index in range(rank, steps_in_epoch(len(batch), size), workers):
        mine.append((index, list(batch[index * size : (index + 1) * size])))
    return mine
