"""MoELoRA: a mixture of low-rank adapters, weighed for every token by a router in each layer (arXiv 2402.12851).

Shapes: x [..., d_in], gates [..., E] over E experts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.adapters.adapter_per_task import AdapterPerTask
from methods.adapters.lora import LoraSettings
from methods.seam.card import ADAPTER_RATES, Card
from methods.shared.expert_layer import ExpertLayer
from methods.shared.linears import replace_targets
from methods.shared.tensors import freeze_all_but


class MoeLoraSettings(LoraSettings):
    """r, alpha and dropout: as LoRA's, for each expert."""

    experts: int | None = Field(None, ge=1, description="experts from the start; none: one more with every task")
    top_k: int | None = Field(None, ge=1, description="experts that act on a token; none: all")


def gate(scores_E: Tensor, top_k: int | None) -> Tensor:
    """Softmax over the `top_k` largest scores of a token (of all, if None), zero elsewhere."""
    if top_k is not None and top_k < scores_E.shape[-1]:
        # minus infinity, not a mask after the softmax: the chosen gates must sum to 1, and the others get no gradient
        chosen = scores_E.topk(top_k, dim=-1)
        scores_E = torch.full_like(scores_E, -math.inf).scatter(-1, chosen.indices, chosen.values)
    return scores_E.softmax(-1)


class MixtureLayer(ExpertLayer):
    """y = W x + (alpha / r) sum over e of gate_e(x) B_e A_e x."""

    def __init__(self, base_layer: nn.Linear, settings: MoeLoraSettings) -> None:
        super().__init__(base_layer, settings.r, settings.alpha, settings.dropout, kind="moelora")
        self.top_k = settings.top_k
        self.router = nn.ModuleDict()

    def add_expert(self, expert: str, rng: torch.Generator) -> None:
        """Add an expert, and its router's vector uniform in ±1/sqrt(d_in)."""
        super().add_expert(expert, rng)
        self.router[expert] = self.drawn_linear(1, rng)

    def remove_expert(self, expert: str) -> None:
        super().remove_expert(expert)
        del self.router[expert]

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.base_layer(x)
        if not self.lora_A:
            return result
        # one dropout mask for all: a token's gates are computed from what its experts read
        x = self.dropout(x)
        scores = []
        for router in self.router.values():
            scores.append(router(x))
        gates_E = gate(torch.cat(scores, dim=-1), self.top_k)
        for expert, down in self.lora_A.items():
            up = self.lora_B[expert]
            index = int(expert)
            gate_1 = gates_E[..., index : index + 1]
            # under autocast the softmax is float32 and the base layer's result bfloat16
            result = result + (self.scale * gate_1 * up(down(x))).to(result.dtype)
        return result


class MoeLora(AdapterPerTask):
    """As many LoRA experts as tasks (arXiv 2402.12851, in the plain form that arXiv 2406.17245 compares with): every layer
    has a router of its own and every token its own weights; all experts and routers train in every task.

    We depart from both in that an expert comes with each task (so that a stream may grow at its end) unless `experts` fixes
    the number, and from the first in leaving out its contrastive loss between experts.
    """

    Settings = MoeLoraSettings
    card = Card(
        summary="a mixture of low-rank adapters with a router in every layer, one more with every task",
        paper="2402.12851",
        needs=("boundaries",),
        memory="one adapter a task, and a router's vector a layer for each",
        space={"r": (4, 8, 16)},
        training_space={"lr": ADAPTER_RATES},
    )

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        s: MoeLoraSettings = self.settings
        freeze_all_but(model, head)
        replace_targets(model, s.targets, lambda linear: MixtureLayer(linear, s))
        # a fixed number of experts belongs to the initial model
        self.grow(model, 0)
        return model

    def grow(self, model: nn.Module, tasks: int) -> None:
        for name, module in model.named_modules():
            if isinstance(module, MixtureLayer):
                module.set_experts(self.settings.experts or tasks, name, self.context.seed)
