"""Gradient projection memory (arXiv 2103.09762), and its sum over workers by random projection (FOT, arXiv 2309.01289).

Shapes: weight [d_out, d_in], basis M [d_in, k] with orthonormal columns, second moment C [d_in, d_in], sketch [d_in, r].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import Context, Method, Settings, State, at_least_float32, generator
from methods.batch import Batch, StreamName
from methods.masking.diagnostics import leaked_share
from methods.masking.output_units import block_linears
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card
from methods.shared.passes import evaluating, first
from methods.shared.token_streams import LayerStreams, check_fit

# part of the random projections' seeds, which must stay as they are
SEED_NAMES: dict[StreamName, str] = {"source": "attention_mask", "target": "decoder_attention_mask"}


class ProjectionSettings(Settings):
    """Default epsilon: the paper's for its ten-task stream."""

    epsilon: float = Field(0.97, ge=0, le=1, description="share of the inputs' energy that the basis holds")
    samples: int | None = Field(256, ge=1, description="examples whose inputs count, drawn at random; null: all")
    sketch: int | None = Field(None, ge=1, description="FOT: columns of the random projection; null: exact moments")
    project_update: bool = Field(False, description="project the optimizer's step too, which AdamW bends back")


def project_out(rows: Tensor, basis: Tensor) -> Tensor:
    """G - G M M^T."""
    return rows - (rows @ basis) @ basis.T


def grown(basis: Tensor, moment: Tensor, epsilon: float) -> Tensor:
    """The basis with the fewest more columns that make it hold the share epsilon of the trace of C.

    The new columns are the leading eigenvectors of C outside the old basis (of R R^T they are R's left singular vectors).
    """
    residual = project_out(project_out(moment, basis).T, basis)
    total = moment.diagonal().sum()
    held = total - residual.diagonal().sum()
    if not total > 0 or held >= epsilon * total:
        return basis
    values, vectors = torch.linalg.eigh((residual + residual.T) / 2)
    energy = held + values.flip(0).clamp(min=0).cumsum(0)
    columns = min(int((energy < epsilon * total).sum()) + 1, basis.shape[0] - basis.shape[1])
    new = vectors.flip(1)[:, :columns]
    new = torch.linalg.qr(new - basis @ (basis.T @ new)).Q
    return torch.cat([basis, new], dim=1)


class Inputs:
    """Sums x x^T over the real tokens x that enter each linear layer; or x omega^T, omega a random [r] for each token."""

    def __init__(
        self, model: nn.Module, layers: Mapping[str, nn.Linear], sketch: int | None, place_seed: tuple[object, ...]
    ) -> None:
        self.sketch, self.place_seed = sketch, place_seed
        self.layer_streams = LayerStreams(model)
        self.masks: dict[StreamName, Tensor] = {}
        self.omegas: dict[StreamName, Tensor] = {}
        self.sums: dict[str, Tensor] = {}
        self.handles = []
        for name, layer in layers.items():
            weight = at_least_float32(layer.weight.detach())
            self.sums[name] = weight.new_zeros(layer.in_features, sketch or layer.in_features)
            self.handles.append(layer.register_forward_pre_hook(self._hook(name)))

    def see(self, batch: Batch) -> None:
        """Note the real tokens of the batch whose forward pass comes next. Options belong to no example: not counted."""
        self.masks = {}
        for stream, tokens in batch.token_streams():
            if stream == "options":
                continue
            self.masks[stream] = tokens.mask.bool()
            if self.sketch is not None:
                self.omegas[stream] = self._omega(SEED_NAMES[stream], tokens.mask, batch, self.sketch)

    def _omega(self, name: str, mask: Tensor, batch: Batch, sketch: int) -> Tensor:
        """[tokens, r]: drawn for each example by its index, so that it is the same in any micro-batch and on any worker."""
        draws = [
            torch.randn(int(n), sketch, generator=generator(*self.place_seed, name, example_index))
            for example_index, n in zip(batch.example_indices, mask.sum(1), strict=True)
        ]
        return torch.cat(draws).to(mask.device)

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            stream = self.layer_streams.of(name)
            if stream == "options":
                return
            mask = self.masks[stream]
            check_fit(name, inputs[0], mask)
            x = inputs[0][mask].to(self.sums[name].dtype)
            other = x if self.sketch is None else self.omegas[stream].to(x.dtype)
            self.sums[name] += x.T @ other

        return add

    def moment(self, name: str, context: Context) -> Tensor:
        """C over all workers but for a factor; of a sketch S, S S^T, whose expectation is C times r."""
        total = context.mean_over_workers(self.sums[name])
        return total if self.sketch is None else total @ total.T

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self.handles:
            handle.remove()


class Projection(CacheFields, Method):
    """Each step, G <- G - G M M^T for the trained linear layers of the transformer blocks; M spans the inputs of old tasks.

    After a task, the inputs of each layer over a sample of its examples extend M until it holds the share epsilon of their
    energy, so that what old inputs give hardly changes. The second moments X^T X are averaged over workers, or with `sketch`
    only random projections of X (FOT). Not projected: embeddings, norms, biases and heads; of LoRA, A and B are each a layer
    of their own. AdamW divides by its second moments and decays weights, so the step itself leaves that space:
    `project_update` takes it back; the leakage is in the diagnostics. The paper's rising epsilon is not there.
    """

    Settings = ProjectionSettings
    card = Card(
        summary="update only where old tasks' inputs do not reach (GPM)",
        paper="2103.09762",
        needs=("boundaries",),
        memory="a basis of at most d_in x d_in for each linear layer, and 1 copy of the trained linear layers",
        space={"epsilon": [0.9, 0.95, 0.97, 0.99], "project_update": [False, True]},
        requires_output_units=True,
        requires_shared_weights=True,
        strength_zero={"epsilon": 0.0},
        strong={"epsilon": 0.9},
    )

    def __init__(self, settings: ProjectionSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.bases: dict[str, Tensor] = {}
        self.start: dict[str, Tensor] = {}
        self.before: dict[str, Tensor] = {}
        self.numbers: dict[str, float | list[Any]] = {}

    def cache_fields(self, task_id: int) -> Mapping[str, Any] | None:
        # the first task is not projected, but its inputs' basis is part of the state
        return self.settings.model_dump(exclude={"project_update"} if task_id == 0 else None)

    def _held(self, model: nn.Module) -> dict[str, nn.Linear]:
        return {name: layer for name, layer in block_linears(model).items() if name in self.bases}

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        layers = block_linears(model)
        self.bases = {name: basis.to(layers[name].weight.device) for name, basis in self.bases.items()}
        self.start = {name: layer.weight.detach().clone() for name, layer in self._held(model).items()}

    @torch.no_grad()
    def before_optimizer_step(self, model: nn.Module) -> None:
        for name, layer in self._held(model).items():
            if layer.weight.grad is not None:
                layer.weight.grad.copy_(project_out(layer.weight.grad, self.bases[name]))
            if self.settings.project_update:
                self.before[name] = layer.weight.detach().clone()

    @torch.no_grad()
    def after_optimizer_step(self, model: nn.Module) -> None:
        if self.settings.project_update:
            for name, layer in self._held(model).items():
                before = self.before.pop(name)
                layer.weight.copy_(before + project_out(layer.weight - before, self.bases[name]))

    @torch.no_grad()
    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        layers = block_linears(model)
        moved = [(layers[name].weight - start, self.bases[name]) for name, start in self.start.items()]
        inputs = Inputs(model, layers, self.settings.sketch, (self.context.seed, "projection", task_id))
        with evaluating(model):
            for batch in first(batches, self.settings.samples):
                inputs.see(batch)
                self.context.forward(model, batch)
        inputs.close()
        for name, layer in layers.items():
            moment = inputs.moment(name, self.context)
            old = self.bases.get(name, moment.new_zeros(layer.in_features, 0)).to(moment.dtype)
            basis = grown(old, moment, self.settings.epsilon)
            if basis.shape[1]:
                self.bases[name] = basis.to(layer.weight.dtype)
        spanned = [
            self.bases[n].shape[1] / layer.in_features if n in self.bases else 0.0 for n, layer in layers.items()
        ]
        self.numbers = {"leakage": leaked_share(moved), "spanned_share": spanned}
        self.start = {}

    def state_dict(self) -> State:
        return dict(self.bases)

    def load_state_dict(self, state: State) -> None:
        self.bases = dict(state)

    def diagnostics(self) -> Mapping[str, float | list[Any]]:
        """`leakage`: share of the task's update that old inputs see; `spanned_share`: k / d_in of each layer."""
        return self.numbers
