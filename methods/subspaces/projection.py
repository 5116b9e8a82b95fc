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
from methods.shared.shapes import check_outputs
from methods.shared.token_streams import LayerStreams, by_token

# part of the random projections' seeds, which must stay as they are
SEED_NAMES: dict[StreamName, str] = {"source": "attention_mask", "target": "decoder_attention_mask"}


class ProjectionSettings(Settings):
    """Default epsilon: the paper's for its ten-task stream."""

    epsilon: float = Field(0.97, ge=0, le=1, description="share of the inputs' energy that the basis holds")
    samples: int | None = Field(256, ge=1, description="examples whose inputs count, drawn at random; null: all")
    sketch: int | None = Field(None, ge=1, description="FOT: columns of the random projection; null: exact moments")
    project_update: bool = Field(False, description="project the optimizer's step too, which AdamW bends back")


def project_out(matrix: Tensor, basis: Tensor) -> Tensor:
    """G - G M M^T."""
    return matrix - (matrix @ basis) @ basis.T


def grown(basis: Tensor, moment: Tensor, epsilon: float) -> Tensor:
    """The basis with the fewest more columns that make it hold the share epsilon of the trace of C.

    The new columns are the leading eigenvectors of C outside the old basis (of R R^T they are R's left singular vectors).
    """
    # from both sides, as C = X^T X: what is left of the inputs X is X - X M M^T
    residual = project_out(project_out(moment, basis).T, basis)
    total = moment.diagonal().sum()
    held = total - residual.diagonal().sum()
    # "not greater" holds for NaN as well
    if not total > 0 or held >= epsilon * total:
        return basis
    # rounding makes the two triangles differ, and eigh reads only one of them
    values, vectors = torch.linalg.eigh((residual + residual.T) / 2)
    # eigh sorts upwards; rounding makes eigenvalues of zero negative
    energy = held + values.flip(0).clamp(min=0).cumsum(0)
    # one more than those that stay below, if the space has it
    columns = min(int((energy < epsilon * total).sum()) + 1, basis.shape[0] - basis.shape[1])
    new = vectors.flip(1)[:, :columns]
    # orthogonal to the basis but for rounding, which would add up over the tasks
    new = torch.linalg.qr(new - basis @ (basis.T @ new)).Q
    return torch.cat([basis, new], dim=1)


class Inputs:
    """Sums x x^T over the real tokens x that enter each linear layer; or x omega^T, omega a random [r] for each token."""

    def __init__(
        self, model: nn.Module, layers: Mapping[str, nn.Linear], sketch: int | None, seed_parts: tuple[object, ...]
    ) -> None:
        self.sketch = sketch
        self.seed_parts = seed_parts
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
        draws = []
        for example_index, num_tokens in zip(batch.example_indices, mask.sum(1), strict=True):
            rng = generator(*self.seed_parts, name, example_index)
            draws.append(torch.randn(int(num_tokens), sketch, generator=rng))
        # drawn on the CPU, so that a run on another device sketches the same
        return torch.cat(draws).to(mask.device)

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            stream = self.layer_streams.of(name)
            if stream == "options":
                return
            mask = self.masks[stream]
            x = by_token(name, inputs[0], mask)[mask].to(self.sums[name].dtype)
            other = x
            if self.sketch is not None:
                # all layers that read a stream share its draws: each layer's moment is estimated by itself
                other = self.omegas[stream].to(x.dtype)
            self.sums[name] += x.T @ other

        return add

    def moment(self, name: str, context: Context) -> Tensor:
        """C over all workers but for a factor; of a sketch S, S S^T, whose expectation is C times r."""
        total = context.mean_over_workers(self.sums[name])
        if self.sketch is None:
            return total
        # squared after the mean, so that it does not depend on how the examples are spread over workers
        return total @ total.T

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
        without_effect: set[str] = set()
        if task_id == 0:
            without_effect.add("project_update")
        return self.settings.model_dump(exclude=without_effect)

    def check_model(self, model: nn.Module, batch: Batch) -> None:
        check_outputs(self.context, model, block_linears(model), batch)

    def _projected_layers(self, model: nn.Module) -> dict[str, nn.Linear]:
        """The layers that have a basis: in the first task none."""
        found = {}
        for name, layer in block_linears(model).items():
            if name in self.bases:
                found[name] = layer
        return found

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        layers = block_linears(model)
        # a checkpoint lies on the CPU
        for name, basis in self.bases.items():
            self.bases[name] = basis.to(layers[name].weight.device)
        self.start = {}
        for name, layer in self._projected_layers(model).items():
            self.start[name] = layer.weight.detach().clone()

    @torch.no_grad()
    def before_optimizer_step(self, model: nn.Module) -> None:
        for name, layer in self._projected_layers(model).items():
            if layer.weight.grad is not None:
                layer.weight.grad.copy_(project_out(layer.weight.grad, self.bases[name]))
            if self.settings.project_update:
                self.before[name] = layer.weight.detach().clone()

    @torch.no_grad()
    def after_optimizer_step(self, model: nn.Module) -> None:
        if self.settings.project_update:
            for name, layer in self._projected_layers(model).items():
                before = self.before.pop(name)
                layer.weight.copy_(before + project_out(layer.weight - before, self.bases[name]))

    @torch.no_grad()
    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        layers = block_linears(model)
        # by the bases that the task was trained with, before its own inputs join them
        moved = []
        for name, start in self.start.items():
            moved.append((layers[name].weight - start, self.bases[name]))
        self._grow_bases(model, layers, task_id, batches)
        spanned = []
        for name, layer in layers.items():
            share = 0.0
            if name in self.bases:
                share = self.bases[name].shape[1] / layer.in_features
            spanned.append(share)
        self.numbers = {"leakage": leaked_share(moved), "spanned_share": spanned}
        self.start = {}

    def _grow_bases(
        self, model: nn.Module, layers: Mapping[str, nn.Linear], task_id: int, batches: Iterable[Batch]
    ) -> None:
        """Let each layer's basis hold the inputs of the task that has just ended."""
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
            # an empty basis would make the layer one that is projected, at the cost of a copy of its weight
            if basis.shape[1]:
                self.bases[name] = basis.to(layer.weight.dtype)

    def state_dict(self) -> State:
        return dict(self.bases)

    def load_state_dict(self, state: State) -> None:
        self.bases = dict(state)

    def diagnostics(self) -> Mapping[str, float | list[Any]]:
        """`leakage`: share of the task's update that old inputs see; `spanned_share`: k / d_in of each layer."""
        return self.numbers
