"""The data policy: which old examples go into a training set or a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

# one example as token ids, before it is collated; a mapping, as every family of models has token ids of its own
Example = Mapping[str, Any]


class DataPolicy:
    """Decides what is trained on. A method without one never sees a training set before it is batched.

    All three are pure functions of the seed and their arguments: every worker, and every resume, calls them anew.
    """

    def training_set(
        self, task_id: int, chosen: Sequence[Example], old: Callable[[int], Sequence[Example]]
    ) -> Sequence[Example]:
        """What the task is trained on, instead of `chosen`. `old(i)` gives the examples of an earlier task i again."""
        # a function, not the examples: reading and tokenizing old tasks takes long, and few policies ask for all
        return chosen

    def num_new_examples(self, task_id: int, size: int) -> int:
        """How many examples of a global batch of `size` come from the task's training set; `compose_batch` adds the others."""
        return size

    def compose_batch(self, task_id: int, step: int, chosen: Sequence[Example]) -> Sequence[Example]:
        """The whole global batch of a step (counted from 1 over the task)."""
        return chosen
