"""DAS: gradients of output units that earlier knowledge needs are damped (arXiv 2302.03241, its soft-masking).

Shapes: B examples, S tokens, d output units of a layer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.base import Context, Method, Settings, State, gradients_alone
from methods.batch import Batch
from methods.masking.output_units import MaskableWeight, maskable_weights
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card
from methods.shared.passes import evaluating, first
from methods.shared.shapes import check_outputs
from methods.shared.tensors import at_least_float32, generator
from methods.shared.token_streams import LayerStreams

# By layer: one number for each output unit
Importance = dict[str, Tensor]


class DasSettings(Settings):
    """`strength` 1 and `general` true are the paper's."""

    strength: float = Field(1.0, ge=0, le=1, description="share of the importance that damps the gradient")
    general: bool = Field(
        True, description="damp the first task too, by what two dropout masks say of the model before training"
    )
    samples: int | None = Field(256, ge=1, description="examples for the importance, drawn at random; null: all")


def bounded(importance_d: Tensor) -> Tensor:
    """|tanh(z)|, z being a layer's importances with mean 0 and variance 1: between 0 and 1; zero where all are equal."""
    deviation = importance_d.std(correction=0)
    if not float(deviation) > 0:
        return torch.zeros_like(importance_d)
    return torch.tanh((importance_d - importance_d.mean()) / deviation).abs()


class _OutputProducts:
    """Collects y * dL/dy of every maskable layer: summed over an example's tokens it is dL/dg, g = 1 being a factor on y."""

    def __init__(self, model: nn.Module, weights: list[MaskableWeight]) -> None:
        self.weights = weights
        self.layer_streams = LayerStreams(model)
        self.outputs: list[tuple[int, Tensor]] = []

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Until the end of the context every layer's outputs are kept."""
        self.outputs = []
        handles = []
        for i, maskable in enumerate(self.weights):
            handles.append(maskable.measured.register_forward_hook(self._hook(i)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, i: int) -> Callable[[nn.Module, object, Tensor], None]:
        name = self.weights[i].name

        def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
            # options belong to no example
            if output.requires_grad and self.layer_streams.of(name) != "options":
                self.outputs.append((i, output))

        return keep

    def of_examples(self, value: Tensor, num_examples: int) -> dict[int, Tensor]:
        """[B, d] of dL/dg for each of B examples by layer, L being the value, a sum over examples."""
        outputs = [output for _, output in self.outputs]
        # by the outputs, not by weights: wrapped for several workers, weights would start an exchange of gradients
        gradients = gradients_alone(value, outputs)
        products: dict[int, Tensor] = {}
        for (i, output), gradient in zip(self.outputs, gradients, strict=True):
            if gradient is None:
                continue
            tokens = at_least_float32(output.detach()) * at_least_float32(gradient)
            product_Bd = tokens.reshape(num_examples, -1, output.shape[-1]).sum(1)
            # a layer that runs twice has one factor for both, so their parts are added before the absolute value
            products[i] = products.get(i, 0) + product_Bd
        return products


def unit_importance(
    context: Context,
    model: nn.Module,
    weights: list[MaskableWeight],
    batches: Iterable[Batch],
    samples: int | None,
    objective: Callable[[Batch], Tensor],
) -> Importance:
    """The mean over examples of |dL/dg_k| for each output unit k, but for one common factor; without other methods' notice.

    `objective` gives L of a batch: a sum over its examples, so that each example's derivative is its own.
    """
    collected = _OutputProducts(model, weights)
    sums = []
    for maskable in weights:
        sums.append(torch.zeros(maskable.num_units, device=maskable.weight.device))
    with evaluating(model), torch.enable_grad():
        for batch in first(batches, samples):
            with collected.listening():
                value = objective(batch)
            for i, product_Bd in collected.of_examples(value, len(batch.source.ids)).items():
                sums[i] = sums[i] + product_Bd.abs().sum(0)
    importance = {}
    for maskable, total in zip(weights, sums, strict=True):
        importance[maskable.name] = context.mean_over_workers(total)
    return importance


class Das(CacheFields, Method):
    """Multiplies the gradient of output unit k of each layer by 1 - I_k, I_k in [0, 1] being its importance so far.

    After each task I <- max(I, |tanh(z(I_t))|) with I_t,k the mean over the task's examples of |dL/dg_k|, g_k = 1 a virtual
    factor on the unit's output and z the normalisation over the layer. Before the first task I comes from the model alone:
    L is KL(f_1 || f_2) between two passes under different dropout, on the first task's texts. Where a model has no dropout
    that is zero, and nothing is damped in the first task.

    Departures: L is the task's own loss, which in continual pre-training is the paper's. Units are the outputs of all linear
    layers inside the blocks; the paper takes attention heads and the outputs of the feed-forward layers. Only weights are
    damped, not biases. The contrastive loss of the paper is left out. Dropout inside attention stays off in the two passes.
    """

    Settings = DasSettings
    card = Card(
        summary="damp the gradients of output units that earlier tasks need",
        paper="2302.03241",
        needs=("boundaries",),
        memory="one number for each output unit",
        space={"strength": [0.25, 0.5, 0.75, 1.0]},
        requires_output_units=True,
        requires_shared_weights=True,
        strength_zero={"strength": 0.0},
        strong={"strength": 1.0},
    )

    def __init__(self, settings: DasSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.importance: Importance = {}

    def cache_fields(self, task_id: int) -> Mapping[str, Any] | None:
        # nothing is damped yet, but what is measured is part of the state
        if task_id == 0 and not self.settings.general:
            return self.settings.model_dump(include={"samples", "general"})
        return self.settings.model_dump()

    def check_model(self, model: nn.Module, batch: Batch) -> None:
        measured = {maskable.name: maskable.measured for maskable in maskable_weights(model)}
        check_outputs(self.context, model, measured, batch)

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        for name, saved in self.importance.items():
            self.importance[name] = saved.to(next(model.parameters()).device)
        if task_id == 0 and self.settings.general:
            self._add(model, batches, self._divergence(model))

    def _divergence(self, model: nn.Module) -> Callable[[Batch], Tensor]:
        """The sum over a batch's examples of KL(f_1 || f_2) at the answer, under two draws of dropout."""

        def divergence(batch: Batch) -> Tensor:
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.train()
            log_probabilities = []
            for draw in range(2):
                # by where the examples stand, not by what this process drew before
                rng = generator(self.context.seed, "das", draw, batch.example_indices[0])
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(rng.initial_seed() % 2**63)
                    logits = self.context.forward(model, batch)[1]
                log_probabilities.append(F.log_softmax(at_least_float32(logits), dim=-1))
            one, other = log_probabilities
            return F.kl_div(other, one, reduction="sum", log_target=True)

        return divergence

    def before_optimizer_step(self, model: nn.Module) -> None:
        if not self.importance:
            return
        for maskable in maskable_weights(model):
            gradient = maskable.unit_gradients
            if gradient is not None:
                damping = 1 - self.settings.strength * self.importance[maskable.name]
                gradient.mul_(maskable.held(damping).to(gradient.dtype)[:, None])

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        self._add(model, batches, lambda batch: self.context.forward(model, batch)[0])

    def _add(self, model: nn.Module, batches: Iterable[Batch], objective: Callable[[Batch], Tensor]) -> None:
        """I <- max(I, the importance for an objective)."""
        weights = maskable_weights(model)
        new = unit_importance(self.context, model, weights, batches, self.settings.samples, objective)
        for name, importance_d in new.items():
            latest = bounded(importance_d)
            if name in self.importance:
                latest = torch.maximum(self.importance[name], latest)
            self.importance[name] = latest

    def state_dict(self) -> State:
        if not self.importance:
            return {}
        return {"importance": self.importance}

    def load_state_dict(self, state: State) -> None:
        self.importance = dict(state["importance"])
