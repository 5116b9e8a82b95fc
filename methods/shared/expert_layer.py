"""A linear layer with low-rank experts beside it, which come one by one.

Shapes: x [..., d_in]; of expert e, A_e [r, d_in] and B_e [d_out, r].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from methods.shared.tensors import generator, type_beside


class ExpertLayer(nn.Module):
    """A frozen linear layer and E experts B_e A_e; how they are added up is a subclass's.

    The parts are named as in peft's LoRA layer, so that whatever looks for adapters by name finds the experts too.
    """

    def __init__(self, base_layer: nn.Linear, rank: int, alpha: float, dropout: float, kind: str) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.scale = alpha / rank
        self.rank = rank
        # the word that keeps one method's draws apart from another's
        self.kind = kind
        self.dropout = nn.Dropout(dropout)
        self.lora_A = nn.ModuleDict()
        self.lora_B = nn.ModuleDict()

    def set_experts(self, count: int, name: str, seed: int) -> None:
        """Have as many experts; a new one starts at B = 0 and A uniform in ±1/sqrt(d_in)."""
        present = len(self.lora_A)
        # a state of fewer tasks may be loaded into a model that has trained more
        for expert in range(count, present):
            self.remove_expert(str(expert))
        for expert in range(present, count):
            # one generator an expert: growing at once, as a resumed run does, draws what growing task by task draws
            self.add_expert(str(expert), generator(seed, self.kind, name, expert))

    def add_expert(self, expert: str, rng: torch.Generator) -> None:
        """Add the expert of that name, drawn by the generator."""
        self.lora_A[expert] = self.drawn_linear(self.rank, rng)
        self.lora_B[expert] = self.zero_linear()

    def remove_expert(self, expert: str) -> None:
        """Remove the expert of that name."""
        del self.lora_A[expert]
        del self.lora_B[expert]

    def expert_output(self, expert: str, x: Tensor) -> Tensor:
        """(alpha / r) B_e A_e x."""
        result: Tensor = self.scale * self.lora_B[expert](self.lora_A[expert](x))
        return result

    def drawn_linear(self, d_out: int, rng: torch.Generator) -> nn.Linear:
        """A linear layer from x, uniform in ±1/sqrt(d_in)."""
        base = self.base_layer.weight
        d_in = self.base_layer.in_features
        linear = nn.Linear(d_in, d_out, bias=False, device=base.device, dtype=type_beside(base))
        drawn = (2 * torch.rand((d_out, d_in), generator=rng) - 1) / math.sqrt(d_in)
        # drawn on the CPU in float32 and copied, so that no device and no precision changes the draw
        linear.load_state_dict({"weight": drawn})
        return linear

    def zero_linear(self) -> nn.Linear:
        """A linear layer from the rank to the output, at zero: a new expert changes nothing yet."""
        base = self.base_layer.weight
        linear = nn.Linear(
            self.rank, self.base_layer.out_features, bias=False, device=base.device, dtype=type_beside(base)
        )
        nn.init.zeros_(linear.weight)
        return linear
