"""Full fine-tuning: every parameter trains."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from methods.base import Settings, Tuning


class FullSettings(Settings):
    """Full fine-tuning has no settings of its own."""


class Full(Tuning):
    """Every parameter of the model trains."""

    Settings = FullSettings
    summary = "all parameters train"
    memory = "none"

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        return model
