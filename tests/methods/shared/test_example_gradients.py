"""Means over single examples, whatever the micro-batch and the number of workers."""

from __future__ import annotations

import pytest
from torch import Tensor

from methods.shared.example_gradients import mean_over_examples
from tests.methods import toy


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_mean_is_over_examples_whatever_the_micro_batch(size: int) -> None:
    model = toy.Toy(toy.WEIGHT)
    found = mean_over_examples(
        toy.context(), model, toy.batches(size), None, lambda e: toy.forward(model, e)[0], lambda g, loss: g**2
    )
    by_hand = sum(g**2 for g in toy.gradients(toy.WEIGHT)) / 4
    toy.assert_close(found["weight"], by_hand)


def test_workers_average_to_the_same() -> None:
    """The two workers' sums and counts, averaged as all_reduce would, give the mean over all three examples."""
    model = toy.Toy(toy.WEIGHT)
    sums: list[list[Tensor]] = []
    for rank in (0, 1):
        seen: list[Tensor] = []

        def note(tensor: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(tensor.clone())
            return tensor

        mean_over_examples(
            toy.context(mean_over_workers=note),
            model,
            toy.batches(2, rank, 2),
            3,
            lambda e: toy.forward(model, e)[0],
            lambda g, loss: g**2,
        )
        sums.append(seen)
    count, total = ((a + b) / 2 for a, b in zip(*sums, strict=True))
    assert count == 1.5
    toy.assert_close(total / count, sum(g**2 for g in toy.gradients(toy.WEIGHT)[:3]) / 3)
