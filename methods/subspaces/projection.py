"""Gradient projection memory (arXiv 2103.09762), and its sum over workers by random projection (FOT, arXiv 2309.01289).

Shapes: weight [d_out, d_in], basis M [d_in, k] with orthonormal columns, second moment C [d_in, d_in], sketch [d_in, r].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import Context, Method, Settings, State
from methods.batch import Batch
from methods.masking.diagnostics import leaked_share
from methods.masking.output_units import block_linears
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card
from methods.shared.passes import evaluating, first
from methods.shared.shapes import check_outputs
from methods.shared.shards import local
from methods.subspaces.layer_inputs import Energies, LayerInputs, Moments


class ProjectionSettings(Settings):
    """Default epsilon: the paper's for its ten-task stream."""

    epsilon: float = Field(0.97, ge=0, le=1, description="share of the inputs' energy that the basis holds")
    samples: int | None = Field(256, ge=1, description="examples whose inputs count, drawn at random; null: all")
    sketch: int | None = Field(None, ge=1, description="FOT: columns of the random projection; null: exact moments")
    project_update: bool = Field(False, description="project the optimizer's step too, which AdamW bends back")


def project_out(matrix: Tensor, basis: Tensor) -> Tensor:
    """G - G M M^T."""
    return matrix - (matrix @ basis) @ basis.T


def with_all_directions(basis: Tensor, moment: Tensor) -> Tensor:
    """The basis and behind it every direction outside it in which C has energy, the one of most energy first.

    The new columns are eigenvectors of C outside the old basis (of R R^T they are R's left singular vectors).
    """
    # from both sides, as C = X^T X: what is left of the inputs X is X - X M M^T
    residual = project_out(project_out(moment, basis).T, basis)
    # rounding makes the two triangles differ, and eigh reads only one of them
    values, vectors = torch.linalg.eigh((residual + residual.T) / 2)
    # what rounding leaves of a zero is no direction that inputs have
    smallest = len(moment) * torch.finfo(moment.dtype).eps * moment.diagonal().sum()
    columns = min(int((values > smallest).sum()), basis.shape[0] - basis.shape[1])
    # eigh sorts upwards
    new = vectors.flip(1)[:, :columns]
    # orthogonal to the basis but for rounding, which would add up over the tasks
    new = torch.linalg.qr(new - basis @ (basis.T @ new)).Q
    return torch.cat([basis, new], dim=1)


def num_columns(energy_K: Tensor, total: Tensor, epsilon: float, at_least: int) -> int:
    """The fewest leading columns that hold the share epsilon of the total energy, energy_K being each one's; at most all."""
    held = energy_K.cumsum(0)
    held_by_least = held[:at_least][-1:].sum()
    # "not greater" holds for NaN as well
    if not total > 0 or held_by_least >= epsilon * total:
        return at_least
    # one more than those that stay below, if there are so many
    return max(at_least, min(int((held < epsilon * total).sum()) + 1, len(held)))


def grown(basis: Tensor, moment: Tensor, epsilon: float) -> Tensor:
    """The basis with the fewest more columns that make it hold the share epsilon of the trace of C."""
    widest = with_all_directions(basis, moment)
    energy_K = ((moment @ widest) * widest).sum(0)
    columns = num_columns(energy_K, moment.diagonal().sum(), epsilon, basis.shape[1])
    return widest[:, :columns]


class Projection(CacheFields, Method):
    """Each step, G <- G - G M M^T for the trained linear layers of the transformer blocks; M spans the inputs of old tasks.

    After a task, the inputs of each layer over a sample of its examples extend M until it holds the share epsilon of their
    energy, so that what old inputs give hardly changes. The second moments X^T X are averaged over workers, or with `sketch`
    only random projections of X (FOT). A sketch's directions are then counted by the energy that the inputs themselves have
    in them, in a pass more; a sketch of few columns may not reach epsilon with all of them.

    Not projected: embeddings, norms, biases and heads; of LoRA, A and B are each a layer of their own. AdamW divides by its
    second moments and decays weights, so the step itself leaves that space: `project_update` takes it back; the leakage is
    in the diagnostics. The paper's rising epsilon is not there.
    """

    Settings = ProjectionSettings
    card = Card(
        summary="update only where old tasks' inputs do not reach (GPM)",
        paper="2103.09762",
        needs=("boundaries",),
        memory="a basis of at most d_in x d_in for each linear layer, and 1 copy of the trained linear layers",
        space={"epsilon": [0.9, 0.95, 0.97, 0.99]},
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
            self.start[name] = local(layer.weight).clone()

    @torch.no_grad()
    def before_optimizer_step(self, model: nn.Module) -> None:
        for name, layer in self._projected_layers(model).items():
            if layer.weight.grad is not None:
                # each row by itself, so that each worker projects what it holds
                gradient = local(layer.weight.grad)
                gradient.copy_(project_out(gradient, self.bases[name]))
            if self.settings.project_update:
                self.before[name] = local(layer.weight).clone()

    @torch.no_grad()
    def after_optimizer_step(self, model: nn.Module) -> None:
        if self.settings.project_update:
            for name, layer in self._projected_layers(model).items():
                before = self.before.pop(name)
                weight = local(layer.weight)
                weight.copy_(before + project_out(weight - before, self.bases[name]))

    @torch.no_grad()
    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        layers = block_linears(model)
        # by the bases that the task was trained with, before its own inputs join them
        moved = []
        for name, start in self.start.items():
            moved.append((local(layers[name].weight) - start, self.bases[name]))
        first_weight = next(iter(layers.values())).weight
        held_shares = self._grow_bases(model, layers, task_id, batches)
        spanned = []
        for name, layer in layers.items():
            share = 0.0
            if name in self.bases:
                share = self.bases[name].shape[1] / layer.in_features
            spanned.append(share)
        self.numbers = {"leakage": leaked_share(moved, first_weight), "spanned_share": spanned}
        if held_shares:
            self.numbers["held_share"] = held_shares
        self.start = {}

    def _grow_bases(
        self, model: nn.Module, layers: Mapping[str, nn.Linear], task_id: int, batches: Iterable[Batch]
    ) -> list[float]:
        """Let each layer's basis hold the inputs of the task that has just ended. Gives what `_measure` does."""
        s: ProjectionSettings = self.settings
        moments = Moments(model, layers, s.sketch, (self.context.seed, "projection", task_id))
        self._read(model, moments, batches)
        grown_bases = {}
        for name, layer in layers.items():
            moment = moments.moment(name, self.context)
            old = self.bases.get(name, moment.new_zeros(layer.in_features, 0)).to(moment.dtype)
            if s.sketch is None:
                grown_bases[name] = grown(old, moment, s.epsilon)
            else:
                grown_bases[name] = with_all_directions(old, moment)
        held_shares = []
        if s.sketch is not None:
            held_shares = self._measure(model, layers, batches, grown_bases)
        for name, basis in grown_bases.items():
            # an empty basis would make the layer one that is projected, at the cost of a copy of its weight
            if basis.shape[1]:
                self.bases[name] = basis.to(layers[name].weight.dtype)
        return held_shares

    def _measure(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Linear],
        batches: Iterable[Batch],
        bases: dict[str, Tensor],
    ) -> list[float]:
        """Of a sketch's directions keep the fewest that hold the share epsilon of the inputs' own energy.

        A sketch's energy is not the inputs': a basis that holds 97 % of the one held 55 to 89 % of the other. Gives the share
        that each layer's basis holds.
        """
        held_shares = []
        energies = Energies(model, layers, bases)
        self._read(model, energies, batches)
        for name, basis in bases.items():
            energy_K, total = self.context.mean_over_workers(energies.sums[name]).split([basis.shape[1], 1])
            num_old = 0
            if name in self.bases:
                num_old = self.bases[name].shape[1]
            columns = num_columns(energy_K, total, self.settings.epsilon, num_old)
            bases[name] = basis[:, :columns]
            held_shares.append(float(energy_K[:columns].sum() / total))
        return held_shares

    def _read(self, model: nn.Module, inputs: LayerInputs, batches: Iterable[Batch]) -> None:
        """Show the task's sample to what looks at the layers' inputs."""
        with evaluating(model):
            for batch in first(batches, self.settings.samples):
                inputs.see(batch)
                self.context.forward(model, batch)
        inputs.close()

    def state_dict(self) -> State:
        return dict(self.bases)

    def load_state_dict(self, state: State) -> None:
        self.bases = dict(state)

    def diagnostics(self) -> Mapping[str, float | list[Any]]:
        """`leakage`: share of the task's update that old inputs see; `spanned_share`: k / d_in of each layer; with
        `sketch` also `held_share`: the share of the task's input energy that each layer's basis holds.
        """
        return self.numbers
