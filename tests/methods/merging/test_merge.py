"""Merging rules against numbers worked by hand and a second implementation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from methods import Context
from methods.merging.merge import Merge, MergeSettings, drop_and_rescale, orthogonal_part

BASE = torch.tensor([[1.0, 1.0], [1.0, 1.0]])


def train(rule: str, ends: list[list[list[float]]], **settings: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Let each "task" move the weights by a given amount; gives the weights at each start and after each merge."""
    model = nn.Linear(2, 2, bias=False)
    merge = Merge(MergeSettings(rule=rule, **settings), Context(0))
    starts, merged = [], []
    with torch.no_grad():
        model.weight.copy_(BASE)
        for task, moves in enumerate(ends):
            merge.before_task(model, task, [])
            starts.append(model.weight.detach().clone())
            model.weight += torch.tensor(moves)
            merge.after_task(model, task, [])
            merged.append(model.weight.detach().clone())
            again = Merge(MergeSettings(rule=rule, **settings), Context(0))
            if merge.state_dict():
                again.load_state_dict(merge.state_dict())
            merge = again  # as after a stop
    return starts, merged


ONE, TWO = [[1.0, 0.0], [0.0, -2.0]], [[3.0, 0.5], [0.0, 4.0]]


def test_an_average_over_tasks_by_hand() -> None:
    starts, merged = train("average", [ONE, TWO, TWO])
    first = BASE + torch.tensor(ONE)
    second = first + torch.tensor(TWO) / 2
    torch.testing.assert_close(merged[0], first)
    torch.testing.assert_close(starts[1], first)
    torch.testing.assert_close(merged[1], second)
    torch.testing.assert_close(merged[2], second + torch.tensor(TWO) / 3)


def test_an_exponential_average_by_hand() -> None:
    _, merged = train("ema", [ONE, TWO], weight=0.25)
    torch.testing.assert_close(merged[1], BASE + torch.tensor(ONE) + 0.25 * torch.tensor(TWO))


def test_task_arithmetic_by_hand() -> None:
    starts, merged = train("arithmetic", [ONE, TWO], scale=0.5)
    torch.testing.assert_close(starts[1], BASE, msg="every task begins anew")
    torch.testing.assert_close(merged[0], BASE + 0.5 * torch.tensor(ONE))
    torch.testing.assert_close(merged[1], BASE + 0.5 * (torch.tensor(ONE) + torch.tensor(TWO)))


def test_ties_by_hand() -> None:
    _, merged = train("ties", [ONE, TWO], scale=1.0, density=0.5)
    # the two largest of four stay: ONE 1, -2; TWO 3, 4. Signs elected by their sums: 4 at [0,0], 2 at [1,1]; the -2 that
    # disagrees is left out; those that agree are averaged
    torch.testing.assert_close(merged[1] - BASE, torch.tensor([[2.0, 0.0], [0.0, 4.0]]))


def test_dare_keeps_the_mean() -> None:
    vector = torch.full((200, 200), 2.0)
    dropped = drop_and_rescale(vector, 0.25, torch.Generator().manual_seed(0))
    assert set(dropped.unique().tolist()) == {0.0, 8.0}
    assert float(dropped.mean()) == pytest.approx(2.0, abs=0.1)
    _, merged = train("dare", [ONE, TWO], scale=1.0, density=1.0)
    torch.testing.assert_close(merged[1], BASE + torch.tensor(ONE) + torch.tensor(TWO))


def test_opcm_against_numpy() -> None:
    rng = np.random.default_rng(0)
    merged, vector = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    u, s, vt = np.linalg.svd(merged)
    rank = next(i + 1 for i in range(3) if s[: i + 1].sum() / s.sum() > 0.5)
    expected = np.zeros((4, 3))
    for i in range(4):
        for j in range(3):
            if i != j and not (i < rank and j < rank):
                expected += (u[:, i] @ vector @ vt[j]) * np.outer(u[:, i], vt[j])
    found = orthogonal_part(torch.tensor(merged), torch.tensor(vector), 0.5)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_opcm_keeps_the_mean_length_of_the_task_vectors() -> None:
    starts, merged = train("opcm", [ONE, TWO, ONE])
    torch.testing.assert_close(merged[0], BASE + torch.tensor(ONE))
    torch.testing.assert_close(starts[2], BASE)
    lengths = [float(torch.tensor(moves).norm()) for moves in (ONE, TWO, ONE)]
    assert float((merged[1] - BASE).norm()) == pytest.approx(sum(lengths[:2]) / 2, rel=1e-5)
    assert float((merged[2] - BASE).norm()) == pytest.approx(sum(lengths) / 3, rel=1e-5)


def test_a_head_that_grew_keeps_its_new_units() -> None:
    small, large = nn.Linear(2, 2, bias=False), nn.Linear(2, 3, bias=False)
    merge = Merge(MergeSettings(rule="arithmetic", scale=1.0), Context(0))
    with torch.no_grad():
        small.weight.copy_(BASE)
        merge.before_task(small, 0, [])
        small.weight += torch.tensor(ONE)
        merge.after_task(small, 0, [])
        large.weight[:2] = small.weight
        large.weight[2] = 7.0
        merge.before_task(large, 1, [])
        torch.testing.assert_close(large.weight.detach(), torch.cat([BASE, torch.tensor([[7.0, 7.0]])]))
        large.weight[2] += 1.0
        merge.after_task(large, 1, [])
    torch.testing.assert_close(large.weight.detach(), torch.cat([BASE + torch.tensor(ONE), torch.tensor([[8.0, 8.0]])]))
