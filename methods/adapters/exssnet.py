"""ExSSNeT: each task finds a subnetwork of one random adapter, and trains what no earlier one has of it (arXiv 2210.10209).

Shapes: masks and scores are those of the weight that they belong to, A [r, d_in] or B [d_out, r].
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.adapters.adapter_per_task import AdapterPerTask
from methods.adapters.lora import LoraSettings
from methods.base import Context, State, generator
from methods.batch import Batch
from methods.seam.card import ADAPTER_RATES, Card
from methods.shared.bits import packed, unpacked
from methods.shared.expert_layer import ExpertLayer
from methods.shared.linears import replace_targets
from methods.shared.tensors import freeze_all_but

Masks = Mapping[str, Tensor]


class ExssnetSettings(LoraSettings):
    """Density and rate of the released runs on text; the adapter is wide, since each task uses a small share of it."""

    r: int = Field(64, ge=1, description="hidden units of the adapter of each layer")
    alpha: float = Field(64.0, gt=0, description="scale: what the adapter adds is multiplied by alpha / r")
    density: float = Field(0.1, gt=0, le=1, description="share of each weight's entries that are in a task's mask")
    mask_share: float = Field(
        0.5, ge=0, le=1, description="share of a task's steps that find its mask; the others train the weights in it"
    )


class TopShare(torch.autograd.Function):
    """1 at the share of scores that are largest, 0 elsewhere; its gradient is passed to the scores as it is."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, share: float) -> Tensor:
        # as the released code rounds, so that a small share keeps one entry at least
        count = scores.numel() - int((1 - share) * scores.numel())
        mask = torch.zeros_like(scores).flatten()
        mask[scores.flatten().topk(count).indices] = 1
        return mask.view_as(scores)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class SubnetLayer(ExpertLayer):
    """y = W x + (alpha / r) (B * m_B) (A * m_A) x, with random A and B and the masks m of one task."""

    def __init__(self, base_layer: nn.Linear, settings: ExssnetSettings) -> None:
        super().__init__(base_layer, settings.r, settings.alpha, settings.dropout, kind="exssnet")
        self.density = settings.density
        # of each task so far, packed
        self.masks: list[Masks] = []
        # the masks that hold; none before the first task
        self.active: Masks = {}
        # those of an earlier task, while it is answered amid the training of another
        self.recalled: Masks = {}
        # of the task that is trained; they make its masks as long as it searches
        self.scores = nn.ParameterDict()
        self.searches = False

    @property
    def parts(self) -> dict[str, Tensor]:
        """The weights A and B; none before the first task."""
        found = {}
        for part, linears in (("A", self.lora_A), ("B", self.lora_B)):
            for linear in linears.values():
                # read anew each time: a pass may have other tensors in their place, as a copy of old weights
                assert isinstance(linear.weight, Tensor)
                found[part] = linear.weight
        return found

    def add_expert(self, expert: str, rng: torch.Generator) -> None:
        """Add the adapter, whose entries all have one size, 1 / sqrt(d_in) of their matrix, and a random sign."""
        super().add_expert(expert, rng)
        with torch.no_grad():
            for weight in self.parts.values():
                signs = 2 * torch.randint(2, weight.shape, generator=rng) - 1
                weight.copy_(signs / math.sqrt(weight.shape[1]))

    def begin(self, rng: torch.Generator) -> None:
        """Search a new task's masks, from scores uniform in ±1/sqrt(d_in)."""
        self.scores = nn.ParameterDict()
        for part, weight in self.parts.items():
            drawn = (2 * torch.rand(weight.shape, generator=rng) - 1) / math.sqrt(weight.shape[1])
            self.scores[part] = nn.Parameter(drawn.to(weight))
        self.searches = True

    def settle(self) -> None:
        """End the search: the masks are those of the present scores."""
        found = {}
        for part, scores in self.scores.items():
            found[part] = TopShare.apply(scores.detach().abs(), self.density).bool()
        self.active = found
        self.searches = False

    def keep(self) -> None:
        """Keep the masks of the task that ends. Its scores are needed no more, and are no part of its checkpoint."""
        kept = {}
        for part, mask in self.active.items():
            kept[part] = packed(mask)
        self.masks.append(kept)
        self.scores = nn.ParameterDict()

    def masks_of(self, task: int) -> Masks:
        """The masks of an earlier task."""
        found = {}
        for part, weight in self.parts.items():
            found[part] = unpacked(self.masks[task][part], weight.shape).to(weight.device)
        return found

    def earlier(self) -> dict[str, Tensor]:
        """What the mask of any earlier task has."""
        found = {}
        for part, weight in self.parts.items():
            found[part] = torch.zeros_like(weight, dtype=torch.bool)
        for task in range(len(self.masks)):
            for part, mask in self.masks_of(task).items():
                found[part] |= mask
        return found

    def subnet(self, part: str) -> Tensor:
        """The weight with its mask on."""
        weight = self.parts[part]
        if self.recalled:
            return weight * self.recalled[part]
        if self.searches:
            return weight * TopShare.apply(self.scores[part].abs(), self.density)
        return weight * self.active[part]

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.base_layer(x)
        if not self.searches and not self.active:
            return result
        hidden = F.linear(self.dropout(x), self.subnet("A"))
        added = self.scale * F.linear(hidden, self.subnet("B"))
        return result + added.to(result.dtype)


class Exssnet(AdapterPerTask):
    """y = W x + (alpha / r) (B * m_B) (A * m_A) x in the target modules: A and B are random, and each task has masks m of its
    own. The first steps of a task train scores s, whose largest |s| make its masks, a gradient of a mask being its scores'; the
    others train what its masks have of A and B and no earlier task's have. When answering the task must be known; a task that
    was not trained yet has the newest one's masks. No later step moves what an earlier mask has, so nothing is forgotten.

    Departures: the paper masks a whole small network, mostly on a frozen encoder's states; we mask an adapter beside layers of
    the model, as for all methods here. With `mask_share: 1` it is SupSup (arXiv 2006.14769). The module that starts a task's
    scores from those of the nearest earlier task (KKT) is left out: it needs all scores, where a mask needs one bit. The masks
    are the last scores', not those with the best dev score. We train all tasks' heads as one, whose weights no mask holds.
    """

    Settings = ExssnetSettings
    card = Card(
        summary="each task finds a sparse subnetwork of one random adapter and trains what no earlier one has of it",
        paper="2210.10209",
        needs=("boundaries", "task labels"),
        memory="one adapter, and one bit a task for each of its weights",
        space={"r": (32, 64, 128), "density": (0.02, 0.05, 0.1, 0.2), "mask_share": (0.25, 0.5, 0.75)},
        training_space={"lr": ADAPTER_RATES},
        # scores start within ±1/sqrt(d_in), and have to change places in the steps of one task
        default_lr=5e-3,
        no_output_units="it trains single weights, wherever its masks have them",
        per_task_weights="each task trains the weights that its masks have and earlier ones left, which no later one moves",
    )

    def __init__(self, settings: ExssnetSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.layers: dict[str, SubnetLayer] = {}
        # of each weight: which entries this step may move, and how the weight was before it
        self.movable: dict[Tensor, Tensor] = {}
        self.before: dict[Tensor, Tensor] = {}
        self.step = 0
        self.searches = False
        self.shares: dict[str, float] = {}

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        freeze_all_but(model, head)
        self.layers = replace_targets(model, self.settings.targets, lambda linear: SubnetLayer(linear, self.settings))
        return model

    def grow(self, model: nn.Module, tasks: int) -> None:
        for name, layer in self.layers.items():
            layer.set_experts(min(tasks, 1), name, self.context.seed)

    def without_decay(self) -> Sequence[nn.Parameter]:
        undecayed = []
        for layer in self.layers.values():
            for name, parameter in layer.named_parameters():
                if not name.startswith("base_layer."):
                    undecayed.append(parameter)
        return undecayed

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        self.step = 0
        self.searches = True
        self.movable = {}
        for name, layer in self.layers.items():
            layer.begin(generator(self.context.seed, "exssnet", "scores", name, task_id))
            # while masks are searched, the weights stay
            for weight in layer.parts.values():
                self.movable[weight] = torch.zeros_like(weight, dtype=torch.bool)

    def before_step(self, model: nn.Module, batches: Sequence[Batch]) -> None:
        if self.step == round(self.settings.mask_share * self.context.num_steps()):
            self._settle()
        self.step += 1

    def _settle(self) -> None:
        """Fix the masks, and let the weights move that they have and no earlier task's masks have."""
        self.searches = False
        own = masked = taken = total = 0
        for layer in self.layers.values():
            layer.settle()
            earlier = layer.earlier()
            for part, weight in layer.parts.items():
                mask = layer.active[part]
                self.movable[weight] = mask & ~earlier[part]
                own += int(self.movable[weight].sum())
                masked += int(mask.sum())
                taken += int((mask | earlier[part]).sum())
                total += mask.numel()
        self.shares = {"own_share": own / masked, "taken_share": taken / total}

    def after_forward(self, model: nn.Module, batch: Batch, logits: Tensor, loss: Tensor) -> Tensor:
        # adds nothing; several workers wait for a gradient of every parameter, also of scores that make no mask any more
        for layer in self.layers.values():
            for scores in layer.scores.values():
                loss = loss + 0 * scores.sum()
        return loss

    @torch.no_grad()
    def before_optimizer_step(self, model: nn.Module) -> None:
        for weight, movable in self.movable.items():
            assert weight.grad is not None
            weight.grad.mul_(movable)
            self.before[weight] = weight.detach().clone()

    @torch.no_grad()
    def after_optimizer_step(self, model: nn.Module) -> None:
        for weight, movable in self.movable.items():
            # again, after the optimizer: a plug-in may have changed the gradients
            weight.copy_(torch.where(movable, weight, self.before[weight]))
        self.before = {}

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        # all steps may have been the search's
        if self.searches:
            self._settle()
        for layer in self.layers.values():
            layer.keep()
        self.movable = {}

    def before_scoring(self, model: nn.Module, task_id: int) -> None:
        for layer in self.layers.values():
            if layer.scores:
                # amid the training of a task that task's masks are not kept yet, and may still be searched
                layer.recalled = layer.masks_of(task_id) if task_id < len(layer.masks) else {}
            elif layer.masks:
                # a task that was not trained yet has no masks of its own
                layer.active = layer.masks_of(min(task_id, len(layer.masks) - 1))

    def after_scoring(self, model: nn.Module) -> None:
        for layer in self.layers.values():
            layer.recalled = {}

    def state_dict(self) -> State:
        state: State = {}
        for name, layer in self.layers.items():
            for task, masks in enumerate(layer.masks):
                state.setdefault(str(task), {})[name] = dict(masks)
        return state

    def load_state_dict(self, state: State) -> None:
        for name, layer in self.layers.items():
            layer.masks = []
            # counted, since text sorts "10" before "2"
            for task in range(len(state)):
                layer.masks.append(state[str(task)][name])
            layer.active = layer.masks_of(len(layer.masks) - 1)

    def diagnostics(self) -> Mapping[str, float]:
        """Of the task's masks the share that no earlier one has, and of all weights the share that any mask has by now."""
        return dict(self.shares)
