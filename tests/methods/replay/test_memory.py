"""The memory: what is kept, draws, and gradients on them, the same for any micro-batch and number of workers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from methods.replay.memory import add_to_gradients, draw, gradient_of, kept, losses, remembered
from methods.replay.replay import Replay, ReplaySettings
from tests.methods import toy, workers

MANY = [{"row": i} for i in range(50)]


def test_what_is_kept_is_rounded_up_seeded_and_replays() -> None:
    assert [len(kept(3, 1, MANY, f)) for f in (0, 0.001, 0.02, 0.021, 0.1, 1)] == [0, 1, 1, 2, 5, 50]
    assert kept(3, 1, MANY, 0.1) == kept(3, 1, MANY, 0.1) != kept(4, 1, MANY, 0.1)
    assert kept(3, 1, MANY, 0.1) != kept(3, 2, MANY, 0.1), "each task has a choice of its own"
    assert kept(3, 1, MANY, 0.2)[:5] == kept(3, 1, MANY, 0.1), "a larger memory holds the smaller one"
    replay = Replay(ReplaySettings(fraction=0.1), toy.context(seed=3))
    assert replay.training_set(1, [], lambda i: MANY) == kept(3, 0, MANY, 0.1)


def test_remembered_are_earlier_tasks_alone() -> None:
    context = workers.context()
    assert remembered(context, 0, 1.0) == []
    assert sorted((e["task"], e["row"]) for e in remembered(context, 2, 1.0)) == [
        *((0, row) for row in range(4)),
        *((1, row) for row in range(3)),
    ]
    assert [e["task"] for e in remembered(context, 2, 0.5)] == [0, 0, 1, 1]  # ceil(1.5) of the second


def test_draws_come_in_rounds() -> None:
    drawn = draw(range(3), 7, "seed")
    assert sorted(drawn[:3]) == sorted(drawn[3:6]) == [0, 1, 2]
    assert draw(range(10), 4, 1) == draw(range(10), 4, 1) != draw(range(10), 4, 2)
    assert draw([], 4, 1) == []


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_gradient_of_a_mean_loss_by_hand(size: int, count: int) -> None:
    """Three examples; with micro-batches of 3 and more than one worker, all but the first have none."""
    chosen = workers.examples(1)

    def work(context: object) -> Tensor:
        model = toy.Toy(toy.WEIGHT)
        model.weight.grad = torch.full_like(model.weight, 9.0)
        found = gradient_of(context, model, losses(context, model, chosen))["weight"]  # type: ignore[arg-type]
        assert (model.weight.grad == 9).all(), "it must not touch what training has accumulated"
        assert model.training
        return found

    expected = sum(toy.gradients(toy.WEIGHT)[:3]) / 3
    assert isinstance(expected, Tensor)
    for found in workers.together(count, work, size):
        toy.assert_close(found, expected)


def test_parameters_that_are_not_reached_have_zero_and_get_no_gradient() -> None:
    model = toy.Toy(toy.WEIGHT)
    model.register_parameter("other", torch.nn.Parameter(torch.ones(2, 2).double()))
    model.register_parameter("frozen", torch.nn.Parameter(torch.ones(2).double(), requires_grad=False))
    context = workers.context()
    found = gradient_of(context, model, losses(context, model, workers.examples(0)))
    assert set(found) == {"weight", "other"}
    assert not found["other"].any()
    add_to_gradients(model, found, 2.0)
    toy.assert_close(model.weight.grad, 2 * sum(toy.gradients(toy.WEIGHT)) / 4)  # type: ignore[arg-type]
    assert model.other.grad is None
    add_to_gradients(model, found, -1.0)
    toy.assert_close(model.weight.grad, sum(toy.gradients(toy.WEIGHT)) / 4)  # type: ignore[arg-type]
