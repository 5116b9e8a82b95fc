"""Which examples make which step, and how many of them a forward pass reads.

Which they are is a pure function of (seed, task, epoch), whatever the number of workers. How many are read at once is set, or
with `training.micro_batch: auto` the most that fit into memory: the first try is a worker's whole part of a global batch. Where
memory runs out the task begins anew with the next smaller size that divides it, and that size is written down for all
sequences of the same kind. The global batch stays, and with it the result, but for what dropout draws.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from methods import generator
from orchestrator.planning.keys import content_key
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.storage.places import folder_at
from orchestrator.store.integrity import seal, unseal, write_whole
from orchestrator.training.parallel import Parallel

logger = logging.getLogger(__name__)

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


class MicroBatch:
    """The `size` of a sequence's micro-batches on these workers."""

    def __init__(self, sequence: SequencePlan, parallel: Parallel) -> None:
        training = sequence.training
        self.parallel = parallel
        self.largest = training.global_batch // parallel.count
        self.is_found = training.micro_batch == "auto"
        self.file = folder_at(sequence.out) / "micro_batches" / f"{_kind(sequence, parallel)}.json"
        self.size = self.largest
        if isinstance(training.micro_batch, int):
            self.size = training.micro_batch

    def look_up(self) -> None:
        """Take the size that was noted, if it is to be found and was before. To be called on every worker."""
        if self.is_found:
            # one worker may see the file before another does
            self.size = self.parallel.agree(self._noted())

    def _noted(self) -> int:
        try:
            noted: int = unseal(self.file.read_bytes())["micro_batch"]
        # none, or damaged: what fits is found once more
        except (OSError, ValueError):
            return self.largest
        return noted

    def shrink(self) -> bool:
        """Take and note the next smaller size, at most half; False where the size is set, or one example does not fit."""
        smaller = [size for size in range(1, self.size // 2 + 1) if self.largest % size == 0]
        if not self.is_found or not smaller:
            return False
        logger.info("out of memory with a micro-batch of %d; going on with %d", self.size, smaller[-1])
        self.size = smaller[-1]
        write_whole(self.file, seal({"micro_batch": self.size}) + b"\n")
        return True


def _kind(sequence: SequencePlan, parallel: Parallel) -> str:
    """A name for all that memory depends on."""
    device = str(parallel.device.type)
    if parallel.device.type == "cuda":
        device = torch.cuda.get_device_name(parallel.device)
    training = sequence.training.model_dump(include={"global_batch", "checkpoint_activations", "compile"})
    model = sequence.model.model_dump(mode="json")
    return content_key(model, sequence.method.spec.model_dump(mode="json"), training, parallel.count, device)
