"""Full fine-tuning: every parameter trains."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from methods.base import Settings, TuningMethod
from methods.seam.card import Card


class FullSettings(Settings):
    """Full fine-tuning has no settings of its own."""


class Full(TuningMethod):
    """Every parameter of the model trains."""

    Settings = FullSettings
    card = Card(
        summary="all parameters train",
        memory="none",
    )

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        # a model comes with all its parameters trainable, the task head among them
        return model
