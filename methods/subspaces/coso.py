"""CoSO: full-rank training in a series of gradient subspaces, orthogonal to those of earlier tasks (arXiv 2505.11816).

Shapes: W, G [O, I]; basis M [O, m]; projector P [O, r1]; sketch S [O, r2].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import Context, Settings, State, TuningMethod, at_least_float32
from methods.batch import Batch
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card, log_range
from methods.shared.linears import target_linears, usual_targets
from methods.shared.tensors import freeze_all_but

# the authors train the projection behind a vision transformer's attention: these are its counterparts
_OUTPUT = {
    "t5": ("o",),
    "bert": ("attention.output.dense",),
    "roberta": ("attention.output.dense",),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi3"), ("o_proj",)),
}


class CosoSettings(Settings):
    """Published for ViT-B/16: rank 15, 50 or 70, sketch 100, 120 or 160, every 1 or 20, threshold 0.98, attention outputs."""

    rank: int = Field(15, ge=1, description="r1: directions of a step's subspace")
    sketch: int = Field(100, ge=1, description="r2: directions of the sketch of a task's gradients")
    every: int = Field(1, ge=1, description="steps between new subspaces")
    threshold: float = Field(0.98, gt=0, le=1, description="share of the sketch's energy that a task reserves")
    cap: float = Field(1.0, gt=0, le=1, description="share of a layer's directions that all tasks reserve at most")
    targets: tuple[str, ...] | None = Field(None, description="module names; none: the output layers of attention")


def left_directions(matrix: Tensor, count: int, floor: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """(U, sigma): the `count` first left singular directions, the largest entry of each positive, and their values.

    A fixed sign lets Adam's moments, which are kept when the subspace changes, mean the same after it. Where a value is not
    above the floor, both are zero: such a direction is drawn by rounding alone.
    """
    u, sigma, _ = torch.linalg.svd(matrix, full_matrices=False)
    u = u[:, :count]
    sigma = sigma[:count]
    signs = u.gather(0, u.abs().argmax(0, keepdim=True)).sign()
    real = sigma > floor
    return u * signs * real, sigma * real


def frequent_directions(sketch: Tensor | None, u: Tensor, sigma: Tensor, count: int) -> Tensor:
    """The sketch after another gradient U diag(sigma) (Frequent Directions, arXiv 1501.01711), of at most `count` columns.

    The squares of the singular values shrink by the first one that is left out. The first gradient is taken as it is.
    """
    new = u[:, :count] * sigma[:count]
    if sketch is None:
        return new
    both_u, both, _ = torch.linalg.svd(torch.cat([sketch, new], dim=1), full_matrices=False)
    shrinkage = both.new_zeros(())
    if len(both) > count:
        shrinkage = both[count].square()
    return both_u[:, :count] * (both[:count].square() - shrinkage).clamp(min=0).sqrt()


def rounding(matrix: Tensor) -> Tensor:
    """The singular value below which a direction of what is left of the matrix is rounding of it (as in `matrix_rank`)."""
    return torch.linalg.matrix_norm(matrix) * max(matrix.shape) * torch.finfo(matrix.dtype).eps


def reserved(sketch: Tensor, threshold: float) -> Tensor:
    """The sketch's first directions, as long as their share of its energy is below the threshold."""
    u, sigma, _ = torch.linalg.svd(sketch, full_matrices=False)
    energy = sigma.square()
    # no division by zero where all gradients of the task were zero
    share = energy.cumsum(0) / energy.sum().clamp(min=torch.finfo(energy.dtype).tiny)
    # a direction without energy is drawn by rounding alone, and would be lost to later tasks for nothing
    chosen = (share < threshold) & (sigma > rounding(sketch))
    return u[:, : int(chosen.sum())]


def extended(basis: Tensor, new: Tensor, limit: int) -> Tensor:
    """An orthonormal basis of both, the old directions first, of at most `limit` columns."""
    new = new - basis @ (basis.T @ new)
    # cut at the end: where the limit binds, the directions of earlier tasks stay and the new ones give way
    new = torch.linalg.qr(new).Q[:, : max(limit - basis.shape[1], 0)]
    # in one order of memory, as a checkpoint gives it back: products of another order round otherwise
    return torch.cat([basis, new], dim=1).contiguous()


class _Layer:
    """One weight with its reserved basis and, while a task is trained, its subspace and sketch."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        # nothing is reserved before the first task, whose gradients pass as they are
        self.basis: Tensor = at_least_float32(weight.detach().new_zeros(weight.shape[0], 0))
        self.projector: Tensor | None = None
        self.sketch: Tensor | None = None


class Coso(CacheFields, TuningMethod):
    """G' = G - M M^T G; every K steps P = the first r1 left singular directions of G', which also go into the sketch;
    W -= lr P Adam(P^T G'). At the task's end the sketch's directions with 98 % of its energy join M.

    As the released code, which keeps Adam's moments when P changes, and updates the sketch as often as P. We fix the signs
    of P's columns, decay no weights, and sum the head's gradient and P^T G' in the norm that is clipped. The published
    temperature of 3 in the loss is left out, and Adam's epsilon is 1e-8; theirs is 1e-6, which shortens the steps along small
    gradients. Directions whose share of a gradient or sketch is mere rounding are neither trained nor reserved. Its authors
    trained vision transformers only: nothing is known for text.
    """

    Settings = CosoSettings
    card = Card(
        summary="training in gradient subspaces orthogonal to those of earlier tasks",
        paper="2505.11816",
        needs=("boundaries",),
        memory="reserved directions of each layer, at most a square matrix",
        space={"rank": (8, 16, 32), "sketch": (32, 64, 128), "every": (1, 20, 200)},
        # a step moves `rank` directions of a few layers, so rates that suit whole weights move next to nothing
        training_space={"lr": log_range(1e-3, 1e-2)},
        default_lr=3e-3,
        no_output_units="its updates mix output units, projected after the gradients",
        no_gradients="it moves coordinates of its own, made of the gradients before plug-ins can change them",
        # a small model's gradients span fewer directions than the default rank: the rest would be drawn by rounding alone
        quick={"rank": 4, "sketch": 8},
    )

    def __init__(self, settings: CosoSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.layers: dict[str, _Layer] = {}
        self.moves = nn.ParameterList()
        self.step = 0

    def model_cache_fields(self) -> Mapping[str, Any]:
        return {"targets": self.settings.targets}

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        freeze_all_but(model, head)
        targets = self.settings.targets or usual_targets(model, _OUTPUT)
        for name, linear in target_linears(model, targets).items():
            linear.weight.requires_grad_(True)
            self.layers[name] = _Layer(linear.weight)
        return model

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        """Adds to the model the coordinates that the optimizer moves; they are zero whenever the model runs."""
        self.step = 0
        self.moves = nn.ParameterList()
        for layer in self.layers.values():
            layer.projector = layer.sketch = None
            # a checkpoint lies on the CPU
            layer.basis = layer.basis.to(layer.weight.device)
            rank = min(self.settings.rank, *layer.weight.shape)
            self.moves.append(nn.Parameter(layer.weight.new_zeros(rank, layer.weight.shape[1])))
        model.add_module("coso_moves", self.moves)

    def after_forward(self, model: nn.Module, batch: Batch, logits: Tensor, loss: Tensor) -> Tensor:
        # adds nothing; several workers wait for a gradient of every parameter
        sums = []
        for move in self.moves:
            sums.append(move.sum())
        return loss + 0 * torch.stack(sums).sum()

    @torch.no_grad()
    def before_optimizer_step(self, model: nn.Module) -> None:
        for layer, move in zip(self.layers.values(), self.moves, strict=True):
            assert layer.weight.grad is not None
            gradient = at_least_float32(layer.weight.grad)
            floor = rounding(gradient)
            gradient = gradient - layer.basis @ (layer.basis.T @ gradient)
            # after the projection, so that the new subspace is orthogonal to the reserved directions too
            if self.step % self.settings.every == 0:
                self._new_subspace(layer, gradient, floor, len(move))
            assert layer.projector is not None
            move.grad = (layer.projector.T @ gradient).to(move.dtype)
            # the optimizer leaves the weight alone, and the norm that is clipped counts `move` only
            layer.weight.grad = None
        self.step += 1

    def _new_subspace(self, layer: _Layer, gradient: Tensor, floor: Tensor, rank: int) -> None:
        count = self.settings.sketch
        # once all directions are reserved, what is left of a gradient is its rounding, which would be trained on
        u, sigma = left_directions(gradient, max(rank, count), floor)
        # a decomposition may differ in its last bits from worker to worker, and their weights would drift apart
        u = self.context.from_first_worker(u)
        sigma = self.context.from_first_worker(sigma)
        layer.projector = u[:, :rank]
        # another decomposition: what goes in is the same everywhere, what comes out need not be
        layer.sketch = self.context.from_first_worker(frequent_directions(layer.sketch, u, sigma, count))

    @torch.no_grad()
    def after_optimizer_step(self, model: nn.Module) -> None:
        for layer, move in zip(self.layers.values(), self.moves, strict=True):
            assert layer.projector is not None
            layer.weight.add_(layer.projector.to(move.dtype) @ move)
            # at zero again, the coordinates hold one step alone, whichever subspace the next step has
            move.zero_()

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        for layer in self.layers.values():
            assert layer.sketch is not None
            limit = int(self.settings.cap * layer.weight.shape[0])
            new = self.context.from_first_worker(reserved(layer.sketch, self.settings.threshold))
            layer.basis = extended(layer.basis, new, limit)
            layer.projector = layer.sketch = None
        self.moves = nn.ParameterList()
        # else they would be among the weights of the checkpoint
        del model.coso_moves

    def state_dict(self) -> State:
        return {"bases": {name: layer.basis for name, layer in self.layers.items()}}

    def load_state_dict(self, state: State) -> None:
        for name, basis in state["bases"].items():
            self.layers[name].basis = basis
