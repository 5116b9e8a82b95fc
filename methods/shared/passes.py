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
        num_wanted = sum(example_index < samples for example_index in batch.example_indices)
        # indices rise, so that no later batch has an example that is wanted
        if not num_wanted:
            return
        yield batch.select(slice(0, num_wanted))
