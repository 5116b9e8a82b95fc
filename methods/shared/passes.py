"""Passes of a method's own over a task's examples."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from torch import nn

from methods.batch import Batch


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout, and without the notice of other methods' forward hooks."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def first(batches: Iterable[Batch], samples: int | None) -> Iterator[Batch]:
    """This worker's part of the first `samples` examples of all workers together; None: all."""
    for batch in batches:
        if samples is None:
            yield batch
            continue
        # counted by index, not by what this worker has seen, so that the number of workers does not matter;
        # indices rise by one in a batch, and no later batch has lower ones
        num_wanted = samples - batch.example_indices[0]
        if num_wanted <= 0:
            return
        yield batch.select(slice(0, num_wanted))
