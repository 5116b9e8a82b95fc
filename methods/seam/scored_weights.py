"""The scored weights: what is scored after a task where it is not what the next task goes on from."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


class ScoredWeights:
    """Says what is scored instead of the trained weights. Without this part they are the same.

    A checkpoint then holds both: the scored weights, and beside them those that training goes on from.
    """

    def scored(self, model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is scored, by name, given what would be scored without this part; asked for after all parts' `after_task`.

        It may name more of the model's parameters than `weights` does, also frozen ones. The model stays as it is.
        """
        return dict(weights)
