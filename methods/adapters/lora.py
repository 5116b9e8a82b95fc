"""LoRA: one low-rank adapter, trained on all tasks in turn (arXiv 2106.09685), by peft."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import nn

from methods.base import Settings, TuningMethod
from methods.seam.card import ADAPTER_RATES, Card
from methods.shared.linears import adapter_targets


class LoraSettings(Settings):
    """Defaults: MIGU's T5 experiments (arXiv 2406.17245): r 8, alpha 32, dropout 0.05."""

    r: int = Field(8, ge=1, description="rank")
    alpha: float = Field(32.0, gt=0, description="scale: the update is alpha / r times B A")
    dropout: float = Field(0.05, ge=0, lt=1, description="dropout on the adapter's input")
    targets: tuple[str, ...] | None = Field(None, description="module names; none: peft's choice, or query and value")


def inject_lora(model: nn.Module, settings: LoraSettings, adapter: str = "default") -> nn.Module:
    """Add an adapter to the target modules; every parameter but the adapter's is frozen."""
    # here, not above: a run without adapters need not wait for peft
    from peft import LoraConfig, inject_adapter_in_model

    # peft makes a set of names of a list, not of a tuple
    targets = list(settings.targets or adapter_targets(model))
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft computes alpha / r; a float is fine
        lora_dropout=settings.dropout,
        target_modules=targets,
    )
    return inject_adapter_in_model(config, model, adapter)


def is_adapter(name: str) -> bool:
    """Whether a parameter of that name belongs to an adapter."""
    return ".lora_A." in name or ".lora_B." in name


class Lora(TuningMethod):
    """Freezes the base and trains y = W x + (alpha / r) B A x in the target modules, and the task head if there is one."""

    Settings = LoraSettings
    card = Card(
        summary="one low-rank adapter for all tasks",
        paper="2106.09685",
        memory="one adapter",
        space={"r": [4, 8, 16, 32]},
        training_space={"lr": ADAPTER_RATES},
        only_lora_layers=True,
        no_own_weights="it trains an adapter, which is a small change already",
    )

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        model = inject_lora(model, self.settings)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(is_adapter(name))
        # peft froze the task head with the base
        for parameter in head:
            parameter.requires_grad_(True)
        return model
