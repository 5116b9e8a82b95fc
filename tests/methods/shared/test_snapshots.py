"""Saved tensors that fit a longer or shorter head; distances to them."""

from __future__ import annotations

import torch

from methods.shared.snapshots import fitted, squared_distance


def test_a_head_of_another_length_fits() -> None:
    saved = {"head": torch.tensor([[1.0], [2.0]]), "gone": torch.ones(1)}
    longer = fitted(saved, {"head": torch.ones(3, 1)})
    assert list(longer) == ["head"]
    assert longer["head"].tolist() == [[1.0], [2.0], [0.0]]
    assert fitted(saved, {"head": torch.ones(1, 1)})["head"].tolist() == [[1.0]]


def test_squared_distance_by_hand() -> None:
    parameters = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]]), "free": torch.tensor([9.0])}
    anchor = {"a": torch.tensor([0.0, 4.0]), "b": torch.tensor([[1.0]])}
    assert squared_distance(parameters, anchor) == 1 + 4 + 4
    importance = {"a": torch.tensor([10.0, 0.5]), "b": torch.tensor([[0.25]])}
    assert squared_distance(parameters, anchor, importance) == 10 + 2 + 1
