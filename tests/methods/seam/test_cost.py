"""The cost: a method that says nothing costs what plain training of its weights does."""

from __future__ import annotations

import pytest
from torch import nn

from methods import Cost, Method
from methods.base import Context, Settings


class Silent(Cost, Method):
    """Says nothing of its own."""


def test_no_pass_and_no_token_is_added() -> None:
    cost = Silent(Settings(), Context(0))
    for task_id in (0, 3):
        assert cost.extra_passes(task_id, 16) == (0.0, 0.0)
        assert cost.added_tokens(task_id) == 0


def test_every_weight_is_read() -> None:
    assert Silent(Settings(), Context(0)).unread(nn.Linear(2, 3).requires_grad_(False)) == {}


@pytest.mark.parametrize("frozen", [(), (0,), (0, 1)])
def test_it_trains_what_requires_a_gradient(frozen: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    for number in frozen:
        model[number].requires_grad_(False)
    expected = []
    for number in (0, 1):
        if number not in frozen:
            expected += [f"{number}.weight", f"{number}.bias"]
    found = Silent(Settings(), Context(0)).trains(model)
    assert list(found) == expected
    for name, weight in found.items():
        assert weight is model.get_parameter(name)
