"""Diagnostics by hand."""

from __future__ import annotations

import pytest
import torch

from methods.masking.diagnostics import (
    kept_by_samples,
    kept_overlap,
    kept_share,
    leaked_share,
    moved_units,
    update_norm,
)


def test_kept_share() -> None:
    assert kept_share(torch.tensor([0.0, 2.0, 4.0, 4.0]), 4) == pytest.approx(1 - 10 / 16)
    assert kept_share(torch.zeros(3), 0) == 1.0


def test_kept_by_samples() -> None:
    sizes = torch.tensor([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0], [1.0, 4.0, 3.0, 2.0]])
    assert kept_by_samples(sizes, 2).tolist() == [1, 2, 2, 1]
    assert kept_by_samples(sizes, 0).tolist() == [3, 3, 3, 3]


def test_overlap_of_one_sample_each_is_the_share_of_common_rows() -> None:
    a, b = torch.tensor([1, 1, 0, 0]), torch.tensor([0, 1, 1, 0])
    assert kept_overlap([{"x": a}, {"x": b}]) == [[1.0, 0.5], [0.5, 1.0]]
    assert kept_overlap([{"x": a, "y": a}, {"x": b, "y": a}]) == [[1.0, 0.75], [0.75, 1.0]]
    assert kept_overlap([{"x": a}, {"x": b, "y": a}]) == [[1.0, 0.5], [0.5, 1.0]], "over the layers that both have"


def test_overlap_of_counts() -> None:
    a, b = torch.tensor([3, 1, 0]), torch.tensor([1, 1, 2])
    assert kept_overlap([{"x": a}, {"x": b}])[0][1] == pytest.approx(0.25 + 0.25)
    assert kept_overlap([]) == []


def test_moved_rows_and_update_norm() -> None:
    before = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    after = torch.tensor([[1.0, 2.0], [3.0, 4.5], [5.0, 7.0]])
    assert moved_units(before, after, torch.tensor([True, True, False])) == 1
    assert moved_units(before, after, torch.tensor([True, True, True])) == 2
    assert update_norm({"w": before, "b": torch.zeros(1)}, {"w": after, "b": torch.ones(1) * 2}) == pytest.approx(
        (0.25 + 1 + 4) ** 0.5
    )


def test_leaked_share() -> None:
    basis = torch.tensor([[1.0], [0.0]])
    assert leaked_share([(torch.tensor([[3.0, 4.0]]), basis)]) == pytest.approx(0.6)
    assert leaked_share([(torch.tensor([[3.0, 0.0]]), basis), (torch.tensor([[0.0, 4.0]]), basis)]) == pytest.approx(
        0.6
    )
    assert leaked_share([]) == 0.0
