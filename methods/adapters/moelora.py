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
        # minus infinity, not a mask after the softmax: the chosen gates must sum to 1, and the others get no gradient
        chosen = scores_E.topk(top_k, dim=-1)
        scores_E = torch.full_like(scores_E, -math.inf).scatter(-1, chosen.indices, chosen.values)
    return scores_E.softmax(-1)


class MixtureLayer(nn.Module):
    """y = W x + (alpha / r) sum over e of gate_e(x) B_e A_e x.

    The parts are named as in peft's LoRA layer, so that whatever looks for adapters by name finds the experts too.
    """

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
        """Have as many experts; a new one starts at B = 0, A and its router's vector uniform in ±1/sqrt(d_in)."""
        present = len(self.lora_A)
        # a state of fewer tasks may be loaded into a model that has trained more
        for expert in range(count, present):
            for part in (self.lora_A, self.lora_B, self.router):
                del part[str(expert)]
        for expert in range(present, count):
            # A first: both are drawn from one generator, of the layer and the expert alone
            rng = generator(seed, "moelora", name, expert)
            self.lora_A[str(expert)] = self._drawn_linear(self.rank, rng)
            self.router[str(expert)] = self._drawn_linear(1, rng)
            self.lora_B[str(expert)] = self._zero_linear()

    def _drawn_linear(self, d_out: int, rng: torch.Generator) -> nn.Linear:
        """A linear layer from x, uniform in ±1/sqrt(d_in)."""
        base = self.base_layer.weight
        d_in = self.base_layer.in_features
        linear = nn.Linear(d_in, d_out, bias=False, device=base.device, dtype=base.dtype)
        drawn = (2 * torch.rand((d_out, d_in), generator=rng) - 1) / math.sqrt(d_in)
        # drawn on the CPU in float32 and copied, so that no device and no precision changes the draw
        linear.load_state_dict({"weight": drawn})
        return linear

    def _zero_linear(self) -> nn.Linear:
        """A linear layer from the rank to the output, at zero: a new expert changes nothing yet."""
        base = self.base_layer.weight
        linear = nn.Linear(self.rank, self.base_layer.out_features, bias=False, device=base.device, dtype=base.dtype)
        nn.init.zeros_(linear.weight)
        return linear

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
        space={"r": (4, 8, 16), "top_k": (None, 1, 2)},
        training_space={"lr": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)},
    )

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as USUAL

        s: MoeLoraSettings = self.settings
        freeze_all_but(model, head)
        targets = s.targets or usual_targets(model, USUAL)
        for name, linear in target_linears(model, targets).items():
            replace_module(model, name, MixtureLayer(linear, s))
        # a fixed number of experts belongs to the initial model
        self.grow(model, 0)
        return model

    def grow(self, model: nn.Module, tasks: int) -> None:
        for name, module in model.named_modules():
            if isinstance(module, MixtureLayer):
                module.set_experts(self.settings.experts or tasks, name, self.context.seed)
