"""MoRA: rank-one experts that activate themselves, a few for each token, more with every task (arXiv 2506.21035).

Shapes: x [..., d_in], activations and weights [..., E] over the E rank-one experts so far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.adapters.adapter_per_task import AdapterPerTask, AdapterPerTaskSettings
from methods.base import at_least_float32
from methods.seam.card import ADAPTER_RATES, Card
from methods.shared.expert_layer import ExpertLayer
from methods.shared.linears import replace_targets
from methods.shared.tensors import freeze_all_but


class MoraSettings(AdapterPerTaskSettings):
    """Defaults: the released runs on language models."""

    r: int = Field(8, ge=1, description="rank-one experts that come with each task")
    alpha: float = Field(16.0, gt=0, description="scale: what the experts add is multiplied by alpha / r")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on what the experts read")
    top_k: int = Field(8, ge=2, description="experts that act on a token, of all that there are")
    temperature: float = Field(0.03, gt=0, description="of the softmax over their activations")
    threshold: float = Field(
        0.2, ge=0, le=1, description="an expert whose normalised activation is below it does not act when answering"
    )


def self_activation(activation_E: Tensor, top_k: int, temperature: float, threshold: float) -> Tensor:
    """softmax(n / temperature) over the `top_k` largest n = z / ‖z‖_2, z being a token's activations; zero elsewhere.

    An expert with n below the threshold gets zero too, of which the others get nothing.
    """
    normalised_E = F.normalize(at_least_float32(activation_E), dim=-1)
    chosen = normalised_E.topk(min(top_k, normalised_E.shape[-1]), dim=-1)
    # minus infinity, not a mask after the softmax: the chosen weights must sum to 1
    scores_E = torch.full_like(normalised_E, -math.inf).scatter(-1, chosen.indices, chosen.values / temperature)
    weights_E = scores_E.softmax(-1)
    if threshold:
        weights_E = weights_E * (normalised_E >= threshold)
    return weights_E


class MoraLayer(ExpertLayer):
    """y = W x + (alpha / r) sum over the rank-one experts i of w_i(x) b_i a_i^T x, with the weights w of `self_activation`.

    The r experts of a task are the rows of one A and the columns of one B.
    """

    def __init__(self, base_layer: nn.Linear, settings: MoraSettings) -> None:
        super().__init__(base_layer, settings.r, settings.alpha, settings.dropout, kind="mora")
        self.top_k = settings.top_k
        self.temperature = settings.temperature
        self.threshold = settings.threshold

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.base_layer(x)
        if not self.lora_A:
            return result
        # one dropout mask for all: an expert's weight follows from what it reads
        x = self.dropout(x)
        threshold = self.threshold
        # in training, experts that do not act yet would never learn to
        if self.training:
            threshold = 0.0
        activations = []
        for down in self.lora_A.values():
            activations.append(down(x))
        activation_E = torch.cat(activations, dim=-1)
        weights_E = self_activation(activation_E, self.top_k, self.temperature, threshold)
        # the weights are float32 at least, and the experts may be in bfloat16
        weighted_E = (weights_E * activation_E).to(activation_E.dtype)
        for up, weighted_r in zip(self.lora_B.values(), weighted_E.split(self.rank, dim=-1), strict=True):
            result = result + (self.scale * up(weighted_r)).to(result.dtype)
        return result


class Mora(AdapterPerTask):
    """y = W x + (alpha / r) sum over i of w_i(x) b_i a_i^T x in the target modules: r rank-one experts (a_i, b_i) come with each
    task, the earlier ones stay as they are, and a token gets the experts that its own activations z_i = a_i^T x choose: w is
    the softmax with a temperature over the `top_k` largest z_i / ‖z‖_2, old and new together. No router, no task label.

    As the released code, whose activations keep their sign: an expert with a large negative one does not act. When answering,
    experts below a threshold are left out, and the weights of the others stay as they are. Departures: all experts have the
    same factor alpha / r; the released code for language models drops it from those of earlier tasks. It adapts more layers.
    """

    Settings = MoraSettings
    card = Card(
        summary="rank-one experts that come with every task and activate themselves, a few for each token",
        paper="2506.21035",
        needs=("boundaries",),
        memory="one adapter a task",
        space={"r": (4, 8, 16), "top_k": (4, 8, 16), "temperature": (0.01, 0.03, 0.1), "threshold": (0.0, 0.1, 0.2)},
        training_space={"lr": ADAPTER_RATES},
        # the weights of a token's experts sum to 1, not to their number, so they learn more slowly than an adapter of that rank
        default_lr=3e-3,
        per_task_weights="each task trains weights of its own, so there are no old ones to hold",
    )

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        freeze_all_but(model, head)
        replace_targets(model, self.settings.targets, lambda linear: MoraLayer(linear, self.settings))
        return model

    def grow(self, model: nn.Module, tasks: int) -> None:
        for name, module in model.named_modules():
            if not isinstance(module, MoraLayer):
                continue
            module.set_experts(tasks, name, self.context.seed)
            for experts in (module.lora_A, module.lora_B):
                for task, linear in experts.items():
                    linear.requires_grad_(int(task) == tasks - 1)
