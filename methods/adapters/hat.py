"""HAT: one low-rank adapter whose units each task takes or leaves by a mask that it learns (arXiv 1801.01423).

Shapes: x [..., d_in], hidden units [r], output units [d_out] of a layer; an embedding has a number for each unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.adapters.lora import LoraSettings
from methods.base import Context, TuningMethod, at_least_float32, generator, trainable
from methods.batch import Batch
from methods.seam.card import ADAPTER_RATES, Card
from methods.shared.expert_layer import ExpertLayer
from methods.shared.linears import replace_targets
from methods.shared.tensors import freeze_all_but, type_beside

# the one adapter of a layer, by the name under which an expert layer holds it
ADAPTER = "0"


class HatSettings(LoraSettings):
    """Defaults: those of the paper and its released code; a wider adapter than LoRA's, since tasks share out its units."""

    r: int = Field(32, ge=1, description="hidden units of each adapter")
    s_max: float = Field(400.0, gt=1, description="slope of the masks at the end of a task and when answering")
    sparsity: float = Field(0.75, ge=0, description="weight in the loss of the share of free units that a task takes")
    max_embedding: float = Field(6.0, gt=0, description="where a unit's embedding is clamped")


def slope(step: int, num_steps: int, s_max: float) -> float:
    """The slope s of a step, counted from 1: in equal steps from 1 / s_max to s_max."""
    # a task of a single step never gets to its end
    done = (step - 1) / max(num_steps - 1, 1)
    return 1 / s_max + (s_max - 1 / s_max) * done


def compensation(embedding: Tensor, s: float, s_max: float) -> Tensor:
    """s_max (cosh(s e) + 1) / (s (cosh(e) + 1)): by it a gradient through sigmoid(s e) is one through sigmoid(e), s_max times.

    The larger argument is clamped to ±50, as in the released code, before its exponential overflows.
    """
    wide = at_least_float32(embedding)
    return s_max / s * ((s * wide).clamp(-50, 50).cosh() + 1) / (wide.cosh() + 1)


def taken_share(masks: Sequence[Tensor], earlier: Sequence[Tensor]) -> Tensor:
    """The sum of a (1 - a_earlier) over all units of all layers, divided by that of 1 - a_earlier."""
    taken: Tensor | float = 0.0
    free: Tensor | float = 0.0
    for mask, old in zip(masks, earlier, strict=True):
        taken = taken + (mask * (1 - old)).sum()
        free = free + (1 - old).sum()
    # where no unit is free any more, none is taken
    return torch.as_tensor(taken) / torch.as_tensor(free).clamp(min=1e-12)


class Attention:
    """Whose masks the running pass has, and how steep they are in training; all layers of a model share one."""

    def __init__(self, s_max: float) -> None:
        self.task = 0
        self.s = s_max
        self.s_max = s_max


class HatLayer(ExpertLayer):
    """y = W x + (alpha / r) o_t * B (h_t * A x), with the masks h_t = sigmoid(s e_t) of hidden units and o_t of outputs."""

    def __init__(self, base_layer: nn.Linear, settings: HatSettings, attention: Attention) -> None:
        super().__init__(base_layer, settings.r, settings.alpha, settings.dropout, kind="hat")
        self.attention = attention
        # of each task so far, by its number
        self.hidden_embeddings = nn.ParameterDict()
        self.output_embeddings = nn.ParameterDict()

    def set_tasks(self, tasks: int, name: str, seed: int) -> None:
        """Have the embeddings of as many tasks, of which the last train; a new one is drawn from a normal distribution."""
        # before the first task there is no adapter either: the state is that of the bare model
        self.set_experts(min(tasks, 1), name, seed)
        sizes = {"hidden": self.rank, "output": self.base_layer.out_features}
        like = self.base_layer.weight
        for kind, embeddings in (("hidden", self.hidden_embeddings), ("output", self.output_embeddings)):
            for task in range(tasks, len(embeddings)):
                del embeddings[str(task)]
            for task in range(len(embeddings), tasks):
                # one generator a task: growing at once, as a resumed run does, draws what growing task by task draws
                drawn = torch.randn(sizes[kind], generator=generator(seed, "hat", kind, name, task))
                embeddings[str(task)] = nn.Parameter(drawn.to(like.device, type_beside(like)))
            for key, embedding in embeddings.items():
                embedding.requires_grad_(int(key) == tasks - 1)

    def masks(self, task: int, s: float) -> tuple[Tensor, Tensor]:
        """(h, o) of a task at a slope."""
        hidden_r = torch.sigmoid(s * self.hidden_embeddings[str(task)])
        output_d = torch.sigmoid(s * self.output_embeddings[str(task)])
        return hidden_r, output_d

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.base_layer(x)
        if not self.lora_A:
            return result
        s = self.attention.s_max
        if self.training:
            s = self.attention.s
        hidden_r, output_d = self.masks(self.attention.task, s)
        hidden = hidden_r * self.lora_A[ADAPTER](self.dropout(x))
        added = self.scale * output_d * self.lora_B[ADAPTER](hidden)
        # under autocast the masks are float32 and the base layer's result bfloat16
        return result + added.to(result.dtype)


class _Protected:
    """The units of a layer that earlier tasks take, while a task is trained, and so which share of a step its weights make."""

    @torch.no_grad()
    def __init__(self, layer: HatLayer, task_id: int) -> None:
        self.layer = layer
        # of no earlier task: nothing is taken
        self.hidden_r = torch.zeros_like(layer.hidden_embeddings[str(task_id)])
        self.output_d = torch.zeros_like(layer.output_embeddings[str(task_id)])
        for task in range(task_id):
            hidden_r, output_d = layer.masks(task, layer.attention.s_max)
            self.hidden_r = torch.maximum(self.hidden_r, hidden_r)
            self.output_d = torch.maximum(self.output_d, output_d)
        self.weights = [
            layer.get_parameter(f"lora_A.{ADAPTER}.weight"),
            layer.get_parameter(f"lora_B.{ADAPTER}.weight"),
        ]
        both = torch.minimum(self.output_d.unsqueeze(1), self.hidden_r)
        # no unit stands before the hidden ones: what A reads is the frozen model's
        self.shares = [(1 - self.hidden_r).unsqueeze(1), 1 - both]
        self.before: list[Tensor] = []

    @torch.no_grad()
    def damp_gradients(self) -> None:
        """Multiply the gradients by 1 - min(a_out, a_in), and note the weights."""
        self.before = []
        for weight, share in zip(self.weights, self.shares, strict=True):
            assert weight.grad is not None
            weight.grad.mul_(share)
            self.before.append(weight.detach().clone())

    @torch.no_grad()
    def damp_step(self) -> None:
        """Let the weights make this share of the step that the optimizer made."""
        for weight, share, before in zip(self.weights, self.shares, self.before, strict=True):
            # lerp gives both its ends exactly: a taken weight keeps every bit, and a free one makes the optimizer's own step
            weight.copy_(torch.lerp(before, weight, share))
        self.before = []


class Hat(TuningMethod):
    """y = W x + (alpha / r) o_t * B (h_t * A x) in the target modules: all tasks share A and B, and task t learns embeddings e_t
    whose masks sigmoid(s e_t) say which hidden units (h) and outputs (o) are its own. The slope s goes from 1 / s_max to s_max
    over the steps of the task. With a_earlier, the largest mask of a unit in any earlier task, gradients of A and B are
    multiplied by 1 - min(a_earlier_out, a_earlier_in), those of e_t by `compensation`, and loss += sparsity times the share
    of the free units that the task takes. When answering, s = s_max and the task must be known; a task that was not trained
    yet has the newest one's masks.

    Masks behind both matrices of an adapter, as in CTR and B-CL (arXiv 2112.02706, 2112.03271) and the `adapter_hat` of their
    authors' ContinualLM; they have a network with a non-linearity there, we a low-rank adapter, as for all methods here.
    Departures: s rises once in a task, not anew in each epoch; and since AdamW makes a full step of a small gradient, the
    step itself is multiplied too, which changes nothing where masks are 0 or 1, but keeps weight decay from taken weights.
    We train all tasks' heads as one, whose weights no mask holds.
    """

    Settings = HatSettings
    card = Card(
        summary="one low-rank adapter whose units tasks share out by learnt masks",
        paper="1801.01423",
        needs=("boundaries", "task labels"),
        memory="one adapter, and one number a task for each of its units",
        space={"r": (8, 32, 128), "sparsity": (0.25, 0.75, 2.5), "s_max": (100, 400, 800)},
        training_space={"lr": ADAPTER_RATES},
        # half of the units are masked from the start, and the masks let little through while they are flat
        default_lr=3e-3,
        per_task_weights="each task trains the weights that its masks take and earlier ones left, which no later one moves",
    )

    def __init__(self, settings: HatSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.attention = Attention(settings.s_max)
        self.layers: dict[str, HatLayer] = {}
        self.protected: list[_Protected] = []
        self.step = 0

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        freeze_all_but(model, head)
        self.layers = replace_targets(
            model, self.settings.targets, lambda linear: HatLayer(linear, self.settings, self.attention)
        )
        return model

    def grow(self, model: nn.Module, tasks: int) -> None:
        for name, layer in self.layers.items():
            layer.set_tasks(tasks, name, self.context.seed)
        self.attention.task = tasks - 1

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        # the earlier embeddings are frozen, so `trainable` alone would leave them out
        weights: dict[str, Tensor] = {}
        for name, layer in self.layers.items():
            for part, parameter in layer.named_parameters():
                if not part.startswith("base_layer."):
                    weights[f"{name}.{part}"] = parameter
        return weights | trainable(model)

    def embeddings(self) -> Iterator[nn.Parameter]:
        """Those of the task that is trained."""
        task = str(self.attention.task)
        for layer in self.layers.values():
            yield layer.hidden_embeddings[task]
            yield layer.output_embeddings[task]

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        self.attention.task = task_id
        self.step = 0
        self.protected = []
        for layer in self.layers.values():
            self.protected.append(_Protected(layer, task_id))

    def before_step(self, model: nn.Module, batches: Sequence[Batch]) -> None:
        self.step += 1
        self.attention.s = slope(self.step, self.context.num_steps(), self.settings.s_max)

    def after_forward(self, model: nn.Module, batch: Batch, logits: Tensor, loss: Tensor) -> Tensor:
        if not self.settings.sparsity:
            return loss
        masks: list[Tensor] = []
        earlier: list[Tensor] = []
        for protected in self.protected:
            masks.extend(protected.layer.masks(self.attention.task, self.attention.s))
            earlier.extend((protected.hidden_r, protected.output_d))
        return loss + batch.loss_weight * self.settings.sparsity * taken_share(masks, earlier)

    def before_optimizer_step(self, model: nn.Module) -> None:
        for protected in self.protected:
            protected.damp_gradients()
        for embedding in self.embeddings():
            assert embedding.grad is not None
            factor = compensation(embedding.detach(), self.attention.s, self.settings.s_max)
            embedding.grad.mul_(factor.to(embedding.dtype))

    @torch.no_grad()
    def after_optimizer_step(self, model: nn.Module) -> None:
        for protected in self.protected:
            protected.damp_step()
        limit = self.settings.max_embedding
        for embedding in self.embeddings():
            embedding.clamp_(-limit, limit)

    def before_scoring(self, model: nn.Module, task_id: int) -> None:
        for layer in self.layers.values():
            # a task that was not trained yet has no masks of its own
            self.attention.task = min(task_id, len(layer.hidden_embeddings) - 1)

    @torch.no_grad()
    def diagnostics(self) -> Mapping[str, float]:
        """The share of units that the tasks so far take."""
        taken = 0.0
        count = 0
        for protected in self.protected:
            newest = protected.layer.masks(self.attention.task, self.settings.s_max)
            for mask, earlier in zip(newest, (protected.hidden_r, protected.output_d), strict=True):
                taken += float(torch.maximum(mask, earlier).sum())
                count += len(mask)
        return {"taken_share": taken / count}
