"""Which examples make which step: pure functions of (seed, task, epoch), whatever the number of workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from methods import generator


def steps_in_epoch(examples: int, global_batch: int) -> int:
    """ceil(examples / global_batch)."""
    return -(-examples // global_batch)


def global_batches(examples: int, global_batch: int, seed: int, task: int, epoch: int) -> Iterator[list[int]]:
    """The indices of every step of an epoch: a seeded permutation, cut into batches of exactly `global_batch`.

    The last batch is filled up from the start of the same permutation, so that each example is seen at least once.
    """
    order = torch.randperm(examples, generator=generator(seed, "order", task, epoch)).tolist()
    for step in range(steps_in_epoch(examples, global_batch)):
        yield [order[i % examples] for i in range(step * global_batch, (step + 1) * global_batch)]


def micro_batches(batch: Sequence[int], size: int, rank: int, workers: int) -> list[tuple[int, list[int]]]:
    """This worker's micro-batches of a global batch, each with its place among all of them.

    The cut depends on `size` alone and micro-batch i goes to worker i mod workers. So with a fixed size every worker count
    computes the same micro-batches, padding and (seeded by the place) dropout included.
    """
    cut = [list(batch[i : i + size]) for i in range(0, len(batch), size)]
    return [(place, cut[place]) for place in range(rank, len(cut), workers)]
