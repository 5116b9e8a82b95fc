"""Which output units of each layer are masked."""

from __future__ import annotations

import torch
from torch import nn

from methods.masking.output_units import MaskableWeight
from methods.masking.selection import Selection


def maskable(units: int) -> MaskableWeight:
    layer = nn.Linear(1, units, bias=False)
    return MaskableWeight("layer", layer.weight, layer, layer)


def test_the_least_important_units_are_masked() -> None:
    (choice,) = Selection([maskable(5)], [0.4]).choose([torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0])])
    assert choice.masked.tolist() == [1, 3, 4]
    assert choice.kept.tolist() == [0, 2]


def test_of_equal_ones_the_first_are_masked() -> None:
    (choice,) = Selection([maskable(4)], [0.5]).choose([torch.tensor([2.0, 1.0, 1.0, 1.0])])
    assert choice.masked.tolist() == [1, 2]


def test_layers_of_one_width_are_chosen_each_by_its_own_importance() -> None:
    """Widths 3, 2, 3 and 3, the last at another ratio: floor(0.6 * 3) = 1, floor(0.6 * 2) = 1, floor(0.2 * 3) = 0."""
    weights = [maskable(3), maskable(2), maskable(3), maskable(3)]
    importances = [torch.tensor(values) for values in ([1.0, 2.0, 3.0], [9.0, 8.0], [3.0, 2.0, 1.0], [1.0, 1.0, 1.0])]
    choices = Selection(weights, [0.4, 0.4, 0.4, 0.8]).choose(importances)
    assert [choice.masked.tolist() for choice in choices] == [[0], [1], [2], []]
    assert [choice.kept.tolist() for choice in choices] == [[1, 2], [0], [0, 1], [0, 1, 2]]


def test_whether_anything_is_masked() -> None:
    assert Selection([maskable(3), maskable(2)], [1.0, 0.9]).masks_nothing
    assert not Selection([maskable(3), maskable(2)], [1.0, 0.5]).masks_nothing
