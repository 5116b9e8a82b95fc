"""Saved tensors that fit a longer or shorter head; distances to them."""

from __future__ import annotations

import torch

from methods.shared.snapshots import fitted, put, squared_distance, with_new_units


def test_a_head_of_another_length_fits() -> None:
    saved = {"head": torch.tensor([[1.0], [2.0]]), "gone": torch.ones(1)}
    longer = fitted(saved, {"head": torch.ones(3, 1)})
    assert list(longer) == ["head"]
    assert longer["head"].tolist() == [[1.0], [2.0], [0.0]]
    assert fitted(saved, {"head": torch.ones(1, 1)})["head"].tolist() == [[1.0]]


def test_units_that_a_weight_lacks_are_the_present_ones() -> None:
    saved = torch.tensor([[1.0], [2.0]])
    present = torch.nn.Parameter(torch.tensor([[7.0], [8.0], [9.0]]))
    longer = with_new_units(saved, present)
    assert longer.tolist() == [[1.0], [2.0], [9.0]] and not longer.requires_grad
    assert with_new_units(saved, present[:1]).tolist() == [[1.0]]
    assert with_new_units(torch.tensor(3.0), torch.tensor(5.0)).item() == 3.0


def test_values_are_written_into_the_parameters_themselves() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    put({"a": parameter}, {"a": torch.tensor([1.0, 2.0]), "b": torch.ones(1)})
    assert parameter.tolist() == [1.0, 2.0]


def test_squared_distance_by_hand() -> None:
    parameters = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]]), "free": torch.tensor([9.0])}
    anchor = {"a": torch.tensor([0.0, 4.0]), "b": torch.tensor([[1.0]])}
    assert squared_distance(parameters, anchor) == 1 + 4 + 4
    importance = {"a": torch.tensor([10.0, 0.5]), "b": torch.tensor([[0.25]])}
    assert squared_distance(parameters, anchor, importance) == 10 + 2 + 1
