"""CUBER: gradient projection that lets a task update the weights of old tasks that it agrees with (arXiv 2211.00789).

Shapes: weight and gradient [d_out, d_in], basis M_j [d_in, k] of old task j with orthonormal columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import Context, Method, Settings, State
from methods.batch import Batch
from methods.masking.output_units import block_linears
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card
from methods.shared.passes import evaluating, first
from methods.shared.shapes import check_outputs
from methods.shared.tensors import at_least_float32
from methods.subspaces.layer_inputs import Moments
from methods.subspaces.projection import grown, project_out, with_all_directions

# By layer, then by the number of the old task: a basis or a gradient
ByTask = dict[str, dict[str, Tensor]]


class CuberSettings(Settings):
    """Thresholds of 0.5 and 0 are our choice: we found no published values."""

    epsilon: float = Field(0.97, ge=0, le=1, description="share of a task's input energy that its basis holds")
    sufficient: float = Field(
        0.5, gt=0, le=1, description="epsilon_1: share of a gradient that lies in an old subspace"
    )
    correlated: float = Field(0.0, ge=-1, le=1, description="epsilon_2: cosine with the old task's gradient")
    strength: float = Field(1.0, ge=0, allow_inf_nan=False, description="lambda: of the pull back to the old weights")
    samples: int | None = Field(256, ge=1, description="examples of a task that are looked at, at random; null: all")


def may_update(gradient: Tensor, basis: Tensor, old_gradient: Tensor, sufficient: float, correlated: float) -> bool:
    """Whether a new task's gradient may move weights within an old task's subspace.

    Where ||G M|| >= epsilon_1 ||G|| (sufficient projection) and <G, G_j> >= epsilon_2 ||G|| ||G_j|| (positive correlation).
    """
    # in float64, as the result is one of two
    new = gradient.double()
    old = old_gradient.double()
    length = new.norm()
    if not length > 0 or not old.norm() > 0:
        return False
    projects = (new @ basis.double()).norm() >= sufficient * length
    agrees = (new * old).sum() >= correlated * length * old.norm()
    return bool(projects and agrees)


def union(bases: Iterable[Tensor], like: Tensor) -> Tensor:
    """An orthonormal basis of all directions that lie in any of the bases, in the width of `like` [d_out, d_in]."""
    size = like.shape[1]
    projectors_dd = like.new_zeros(size, size)
    for basis in bases:
        projectors_dd = projectors_dd + basis.to(like) @ basis.to(like).T
    return with_all_directions(like.new_zeros(size, 0), projectors_dd)


class Cuber(CacheFields, Method):
    """G <- (G + lambda sum over j in R of (W - W_0) M_j M_j^T) (I - M M^T) for the trained linear layers of the blocks.

    M_j spans the inputs of old task j, as GPM takes them; R are the old tasks that `may_update` lets the new one move, by its
    gradient at W_0, where it begins, and the gradient G_j that task j ended with; M spans the subspaces of all other old
    tasks. Both are decided for each layer.

    Of the paper its abstract alone was at hand, and no released code: the two conditions and the penalty are our reading, the
    latter as lambda / 2 ||(W - W_0) M_j||^2, which has a gradient where a task begins; the thresholds are ours. Left out is a
    scaled weight projection, by which a task that projects but does not agree reads old weights through a matrix of its own:
    answers would need the task's name. Each task's basis is of its own inputs, and where a subspace in R meets one outside,
    nothing moves. As under GPM, AdamW's steps leave the allowed space a little, and other parameters are free.
    """

    Settings = CuberSettings
    card = Card(
        summary="GPM that lets a task update the weights of old tasks whose gradients agree with its own",
        paper="2211.00789",
        needs=("boundaries",),
        memory="for each task a basis and a gradient of each trained linear layer",
        space={"epsilon": [0.9, 0.95, 0.97, 0.99], "sufficient": [0.3, 0.5, 0.7], "strength": [0.1, 1.0, 10.0]},
        requires_output_units=True,
        requires_shared_weights=True,
        strength_zero={"epsilon": 0.0},
        strong={"epsilon": 0.9},
        not_sharded="it compares and projects gradients of whole weights",
    )

    def __init__(self, settings: CuberSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.bases: ByTask = {}
        self.gradients: ByTask = {}
        # of the task that is trained, by layer: M, the bases of R, and W_0
        self.blocked: dict[str, Tensor] = {}
        self.open: dict[str, list[Tensor]] = {}
        self.start: dict[str, Tensor] = {}

    def cache_fields(self, task_id: int) -> Mapping[str, Any] | None:
        # the first task is not projected, but its basis and gradient are part of the state
        if task_id == 0:
            return self.settings.model_dump(include={"epsilon", "samples"})
        return self.settings.model_dump()

    def check_model(self, model: nn.Module, batch: Batch) -> None:
        check_outputs(self.context, model, block_linears(model), batch)

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        self.blocked = {}
        self.open = {}
        self.start = {}
        if not self.bases:
            return
        layers = block_linears(model)
        gradients = self._gradients(model, layers, batches)
        for name, layer in layers.items():
            self._decide(name, layer.weight.detach(), gradients[name])

    def _decide(self, name: str, weight: Tensor, gradient: Tensor) -> None:
        """Sort the old tasks of a layer into those that the new one may move and the others."""
        s: CuberSettings = self.settings
        open_bases = []
        other_bases = []
        for task, saved in self.bases.get(name, {}).items():
            # a checkpoint lies on the CPU
            basis = saved.to(weight.device)
            if may_update(gradient, basis, self.gradients[name][task].to(gradient), s.sufficient, s.correlated):
                open_bases.append(basis)
            else:
                other_bases.append(basis)
        if open_bases:
            self.open[name] = open_bases
            self.start[name] = weight.clone()
        if other_bases:
            together = union(other_bases, at_least_float32(weight)).to(weight.dtype)
            self.blocked[name] = self.context.from_first_worker(together)

    def _gradients(
        self, model: nn.Module, layers: Mapping[str, nn.Linear], batches: Iterable[Batch]
    ) -> dict[str, Tensor]:
        """The layers' gradients of the loss over the task's sample, but for a common factor; the same on every worker."""
        weights = [layer.weight for layer in layers.values()]
        sums = [torch.zeros_like(at_least_float32(weight.detach())) for weight in weights]
        with evaluating(model), torch.enable_grad():
            for batch in first(batches, self.settings.samples):
                loss, _ = self.context.forward(model, batch)
                found = self.context.gradients(loss, weights)
                for total, gradient in zip(sums, found, strict=True):
                    if gradient is not None:
                        total += gradient
        gradients = {}
        for name, total in zip(layers, sums, strict=True):
            gradients[name] = self.context.from_first_worker(self.context.mean_over_workers(total))
        return gradients

    @torch.no_grad()
    def before_optimizer_step(self, model: nn.Module) -> None:
        if not self.open and not self.blocked:
            return
        for name, layer in block_linears(model).items():
            gradient = layer.weight.grad
            if gradient is None:
                continue
            for basis in self.open.get(name, []):
                gradient += self.settings.strength * ((layer.weight - self.start[name]) @ basis) @ basis.T
            if name in self.blocked:
                gradient.copy_(project_out(gradient, self.blocked[name]))

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        layers = block_linears(model)
        gradients = self._gradients(model, layers, batches)
        moments = Moments(model, layers, None, (self.context.seed, "cuber", task_id))
        with evaluating(model), torch.no_grad():
            for batch in first(batches, self.settings.samples):
                moments.see(batch)
                self.context.forward(model, batch)
        moments.close()
        for name, layer in layers.items():
            moment = moments.moment(name, self.context)
            own = grown(moment.new_zeros(layer.in_features, 0), moment, self.settings.epsilon)
            # an empty basis spans nothing that could be held
            if own.shape[1]:
                basis = self.context.from_first_worker(own.to(layer.weight.dtype).contiguous())
                self.bases.setdefault(name, {})[str(task_id)] = basis
                self.gradients.setdefault(name, {})[str(task_id)] = gradients[name]

    def state_dict(self) -> State:
        if not self.bases:
            return {}
        return {"bases": self.bases, "gradients": self.gradients}

    def load_state_dict(self, state: State) -> None:
        self.bases = {name: dict(of_layer) for name, of_layer in state["bases"].items()}
        self.gradients = {name: dict(of_layer) for name, of_layer in state["gradients"].items()}

    def diagnostics(self) -> Mapping[str, float | list[Any]]:
        """`open`: of each layer that holds old tasks, how many of them the task could move."""
        counts = []
        for name in sorted({*self.open, *self.blocked}):
            counts.append(len(self.open.get(name, [])))
        return {"open": counts}
