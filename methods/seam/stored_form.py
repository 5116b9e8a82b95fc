"""The stored form: in what form a checkpoint holds the trained weights, where that is not as they are."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


class StoredForm:
    """Says in what form the trained weights are stored. Without this part they are stored as they are.

    What is scored, and what the next task goes on from, are the weights that the stored form gives: in the process that stored
    them too. So the form may lose something, and still a sequence that stops and goes on is one that never stopped.
    """

    def packed(self, model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is stored instead of the weights, by name; asked for after all parts' `after_task`. The model stays as it is."""
        return dict(weights)

    def unpacked(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights that a stored form gives, by the names of the model's parameters."""
        return dict(stored)
