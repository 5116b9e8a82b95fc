"""Which output units to mask, chosen for all layers of one width and ratio at a time.

Shapes: d_out output units, L layers of one width, M masked units of each, K = d_out - M kept ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.masking.output_units import MaskableWeight, masked_count


@dataclass(frozen=True)
class Choice:
    """The units of one layer by index: the `masked` ones [M] in order of importance, the `kept` ones [K] in theirs."""

    masked: Tensor
    kept: Tensor


def units_below_quantile(magnitude_O: Tensor, ratio: float) -> Tensor:
    """The released code's rule: indices of the units below the (1 - ratio) quantile, interpolated."""
    # strictly below, as there: a layer whose units are all equal is not masked at all
    return (magnitude_O < torch.quantile(magnitude_O, 1 - ratio)).nonzero().flatten()


class Selection:
    """Masks the floor((1 - ratio) * d_out) least important units of each layer; of equal ones the first."""

    def __init__(self, weights: Sequence[MaskableWeight], ratios: Sequence[float]) -> None:
        self.num_layers = len(weights)
        # by (width, units to mask): the numbers of the layers
        self.groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, (maskable, ratio) in enumerate(zip(weights, ratios, strict=True)):
            width = maskable.num_units
            self.groups[width, masked_count(ratio, width)].append(i)

    @property
    def masks_nothing(self) -> bool:
        """Whether every unit of every layer is kept."""
        return not any(num_masked for _, num_masked in self.groups)

    def choose(self, importances: Sequence[Tensor]) -> list[Choice]:
        """The choice for each layer by its importance [d_out]."""
        chosen: dict[int, Choice] = {}
        for (_, num_masked), layers in self.groups.items():
            importance_LO = torch.stack([importances[i] for i in layers])
            # one sort for all of them: on a GPU a sort for each layer is mostly waiting
            order_LO = importance_LO.argsort(dim=1, stable=True)
            masked_LM = order_LO[:, :num_masked]
            kept_LK = order_LO[:, num_masked:].sort(dim=1).values
            for i, masked, kept in zip(layers, masked_LM, kept_LK, strict=True):
                chosen[i] = Choice(masked, kept)
        return [chosen[i] for i in range(self.num_layers)]
