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


@pytest.mark.parametrize(
    ("alpha", "kept"),
    [
        # singular values 4, 3, 2, 1: of their sum the first is 0.4, two are 0.7, three 0.9
        (0.3, [[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]]),
        (0.5, [[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]]),
        (0.75, [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]]),
        (0.95, [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1], [1, 1, 1, 0]]),
    ],
)
def test_opcm_keeps_clear_of_as_many_directions_as_make_up_alpha(alpha: float, kept: list[list[int]]) -> None:
    """The released code's `split_rank`, an index from 0: of the merged update's own axes none needs to be worked out."""
    vector = torch.arange(1.0, 17.0).view(4, 4)
    found = orthogonal_part(torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0])), vector, alpha)
    torch.testing.assert_close(found, vector * torch.tensor(kept))


def test_opcm_turns_with_its_directions() -> None:
    """Another orthonormal basis on both sides turns the result along, rows outside the merged update included."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (4, 3))
    merged = np.zeros((4, 3))
    np.fill_diagonal(merged, [5.0, 3.0, 2.0])
    vector = rng.normal(size=(4, 3))
    expected = vector.copy()
    np.fill_diagonal(expected, 0)
    # of 10 the first is 0.5, two are 0.8
    expected[:2, :2] = 0
    found = orthogonal_part(torch.tensor(left @ merged @ right.T), torch.tensor(left @ vector @ right.T), 0.85)
    np.testing.assert_allclose(found.numpy(), left @ expected @ right.T, atol=1e-12)


def test_opcm_over_three_tasks_by_another_hand() -> None:
    """theta_0 + (lambda_(t-1) T + T') / lambda_t, all in numpy; a bias, which has no directions, is summed as it is."""
    rng = np.random.default_rng(1)
    moves = [{"0.weight": rng.normal(size=(3, 3)), "0.bias": rng.normal(size=3)} for _ in range(3)]
    model = nn.Sequential(nn.Linear(3, 3)).double()
    base = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    merge = Merge(MergeSettings(rule="opcm", alpha=0.4), Context(0))
    total: dict[str, Any] = {}
    factor = 1.0
    for task in range(3):
        merge.before_task(model, task, [])
        with torch.no_grad():
            for name, p in model.named_parameters():
                assert np.allclose(p.numpy(), base[name]), "every task begins anew"
                p += torch.tensor(moves[task][name])
        merge.after_task(model, task, [])
        lengths = [np.sqrt(sum((m**2).sum() for m in move.values())) for move in moves[: task + 1]]
        if not total:
            total = dict(moves[0])
        else:
            u, s, vt = np.linalg.svd(total["0.weight"])
            p = u.T @ moves[task]["0.weight"] @ vt.T
            rank = 0
            while s[: rank + 1].sum() <= 0.4 * s.sum():
                rank += 1
            p[:rank, :rank] = 0
            np.fill_diagonal(p, 0)
            total = {
                "0.weight": factor * total["0.weight"] + u @ p @ vt,
                "0.bias": factor * total["0.bias"] + moves[task]["0.bias"],
            }
            factor = np.sqrt(sum((x**2).sum() for x in total.values())) / np.mean(lengths)
            total = {name: x / factor for name, x in total.items()}
        for name, p in model.named_parameters():
            np.testing.assert_allclose(p.detach().numpy() - base[name], total[name], atol=1e-9)


def test_dare_drops_other_entries_of_each_tensor_and_task_and_the_same_ones_again() -> None:
    def kept(seed: int) -> list[Tensor]:
        model = nn.Sequential(nn.Linear(40, 40, bias=False), nn.Linear(40, 40, bias=False))
        merge = Merge(MergeSettings(rule="dare", density=0.5, scale=1.0), Context(seed))
        found, before = [], [torch.zeros(40, 40)] * 2
        for task in range(2):
            merge.before_task(model, task, [])
            base = [p.detach().clone() for p in model.parameters()]
            with torch.no_grad():
                for p in model.parameters():
                    p += 1.0
            merge.after_task(model, task, [])
            sums = [(p.detach() - b).round() for p, b in zip(model.parameters(), base, strict=True)]
            # what this task added to the sum: each entry was dropped, or is one divided by the density
            found += [s - b for s, b in zip(sums, before, strict=True)]
            before = sums
        return found

    masks = kept(0)
    for i, mask in enumerate(masks):
        assert set(mask.unique().tolist()) == {0.0, 2.0}
        for other in masks[:i]:
            # independent masks agree in half of the entries
            assert 0.4 < float((mask == other).double().mean()) < 0.6
    assert all(torch.equal(a, b) for a, b in zip(masks, kept(0), strict=True))
    assert not torch.equal(masks[0], kept(1)[0])


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


@pytest.mark.parametrize("rule", ["ema", "average"])
def test_an_average_shares_the_first_task_with_plain_training(rule: str) -> None:
    """There it does nothing; the sums over task vectors begin with the first one."""
    merge = Merge(MergeSettings(rule=rule), Context(0))  # type: ignore[arg-type]
    assert merge.cache_fields(0) is None
    assert merge.cache_fields(1) == merge.settings.model_dump()
    assert Merge(MergeSettings(rule="arithmetic"), Context(0)).cache_fields(0) is not None


def test_opcm_stays_clear_of_directions_whatever_their_size() -> None:
    """Of no update there are none to stay clear of."""
    vector = torch.arange(1.0, 10.0).view(3, 3)
    assert torch.equal(orthogonal_part(torch.zeros(3, 3), vector, 0.5), vector)
    large = orthogonal_part(torch.diag(torch.tensor([6.0, 3.0, 1.0])), vector, 0.7)
    small = orthogonal_part(torch.diag(torch.tensor([6e-3, 3e-3, 1e-3])), vector, 0.7)
    torch.testing.assert_close(small, large)
    assert large[0, 0] == 0 and not torch.equal(large, vector)
