"""MoELoRA: a mixture of low-rank adapters, weighed for every token by a router in each layer (arXiv 2402.12851).

Shapes: x [..., d_in], gates [..., E] over E experts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.adapters.inclora import AdapterPerTask, freeze_all_but
from methods.adapters.lora import LoraSettings
from methods.base import generator
from methods.seam.card import Card
from methods.shared.linears import replace_module, target_linears, usual_targets


class MoeLoraSettings(LoraSettings):
    """r, alpha and dropout: as LoRA's, for each expert."""

    experts: int | None = Field(None, ge=1, description="experts from the start; none: one more with every task")
    top_k: int | None = Field(None, ge=1, description="experts that act on a token; none: all")


def gate(scores_E: Tensor, top_k: int | None) -> Tensor:
    """Softmax over the `top_k` largest scores of a token (of all, if None), zero elsewhere."""
    if top_k is not None and top_k < scores_E.shape[-1]:
        chosen = scores_E.topk(top_k, dim=-1)
        scores_E = torch.full_like(scores_E, -math.inf).scatter(-1, chosen.indices, chosen.values)
    return scores_E.softmax(-1)


class MixtureLayer(nn.Module):
    """y = W x + (alpha / r) sum over e of gate_e(x) B_e A_e x. The names of the parts are those of peft's LoRA layer."""

    def __init__(self, base_layer: nn.Linear, settings: MoeLoraSettings) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.scale = settings.alpha / settings.r
        self.top_k = settings.top_k
        self.rank = settings.r
        self.dropout = nn.Dropout(settings.dropout)
        self.lora_A = nn.ModuleDict()
        self.lora_B = nn.ModuleDict()
        self.router = nn.ModuleDict()

    def set_experts(self, count: int, name: str, seed: int) -> None:
        """Have as many experts; a new one starts at B = 0, A and its router row uniform in ±1/sqrt(d_in)."""
        for expert in range(count, len(self.lora_A)):
            for part in (self.lora_A, self.lora_B, self.router):
                del part[str(expert)]
        like = {"device": self.base_layer.weight.device, "dtype": self.base_layer.weight.dtype}
        d_in = self.base_layer.in_features
        d_out = self.base_layer.out_features
        for expert in range(len(self.lora_A), count):
            rng = generator(seed, "moelora", name, expert)
            for part, rows in ((self.lora_A, self.rank), (self.router, 1)):
                linear = nn.Linear(d_in, rows, bias=False, **like)
                drawn = (2 * torch.rand((rows, d_in), generator=rng) - 1) / math.sqrt(d_in)
                linear.load_state_dict({"weight": drawn})
                part[str(expert)] = linear
            up = nn.Linear(self.rank, d_out, bias=False, **like)
            nn.init.zeros_(up.weight)
            self.lora_B[str(expert)] = up

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.base_layer(x)
        if not self.lora_A:
            return result
        x = self.dropout(x)
        gates_E = gate(torch.cat([row(x) for row in self.router.values()], dim=-1), self.top_k)
        for e, (a, b) in enumerate(zip(self.lora_A.values(), self.lora_B.values(), strict=True)):
            result = result + (self.scale * gates_E[..., e : e + 1] * b(a(x))).to(result.dtype)
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
        memory="one adapter a task, and a router row a layer for each",
        space={"r": (4, 8, 16), "top_k": (None, 1, 2)},
        training_space={"lr": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)},
    )

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as USUAL

        s: MoeLoraSettings = self.settings
        freeze_all_but(model, head)
        for name, linear in target_linears(model, s.targets or usual_targets(model, USUAL)).items():
            replace_module(model, name, MixtureLayer(linear, s))
        self.grow(model, 0)
        return model

    def grow(self, model: nn.Module, tasks: int) -> None:
        for name, module in model.named_modules():
            if isinstance(module, MixtureLayer):
                module.set_experts(self.settings.experts or tasks, name, self.context.seed)
