"""The data policy: without a word of the method, a task is trained on its own examples, whole batches of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from methods import Context, DataPolicy, Example, Method, Settings


class Silent(DataPolicy, Method):
    """Says nothing of its own."""


EXAMPLES: list[Example] = [{"source": [5]}, {"source": [6]}]


def never(task_id: int) -> Sequence[Example]:
    """Reading and tokenizing old tasks takes long."""
    raise AssertionError("old examples were asked for")


@pytest.mark.parametrize("task_id", [0, 2])
def test_the_examples_stay_and_no_old_ones_are_read(task_id: int) -> None:
    policy = Silent(Settings(), Context(0))
    assert policy.training_set(task_id, EXAMPLES, never) is EXAMPLES
    assert policy.num_new_examples(task_id, 16) == 16
    assert policy.compose_batch(task_id, 1, EXAMPLES) is EXAMPLES
