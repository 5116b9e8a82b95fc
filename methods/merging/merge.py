"""Merging after each task: averages, task arithmetic, TIES, DARE and OPCM over the weights that each task gave."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import Context, Method, Settings, State, at_least_float32, generator, trainable
from methods.batch import Batch
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card
from methods.shared.linears import is_linear
from methods.shared.shards import part_of, total, whole
from methods.shared.snapshots import copies, fitted, put, with_new_units

Tensors = dict[str, Tensor]


class MergeSettings(Settings):
    """`ema` and `average` go on from the merged weights; the other rules train every task from the weights before training."""

    rule: Literal["ema", "average", "arithmetic", "ties", "dare", "opcm"] = "average"
    weight: float = Field(0.5, gt=0, le=1, description="ema: of the newest task")
    scale: float = Field(0.3, gt=0, description="arithmetic, ties, dare: of the merged task vectors")
    density: float = Field(0.2, gt=0, le=1, description="ties, dare: share of each task vector that is kept")
    alpha: float = Field(
        0.5, ge=0, lt=1, description="opcm: share of the merged update's singular values to stay clear of"
    )


def drop_and_rescale(vector: Tensor, density: float, rng: torch.Generator) -> Tensor:
    """DARE (arXiv 2311.03099): each entry stays with probability `density`, and is divided by it."""
    # drawn on the CPU, so that a run on another device drops the same entries
    stays = torch.rand(vector.shape, generator=rng) < density
    return vector * part_of(stays, vector) / density


def orthogonal_part(merged_MN: Tensor, vector_MN: Tensor, alpha: float) -> Tensor:
    """OPCM (arXiv 2501.09522): of a new task vector, what lies outside the main directions of the merged update.

    With merged = U S V^T, P = U^T vector V: P's diagonal and its first r x r block are zeroed, r being the number of leading
    singular values that together make up at most the share `alpha` of the sum of all; the result is U P V^T. So it is in the
    released code, whose r is the index, from 0, of the first value at which the share is above `alpha`.
    """
    # full: the part outside the merged update's column and row space is kept, and needs directions too
    u, s, vh = torch.linalg.svd(at_least_float32(merged_MN), full_matrices=True)
    if not bool(s.sum() > 0):
        return vector_MN
    rank = int((torch.cumsum(s, 0) / s.sum() <= alpha).sum())
    p = u.T @ at_least_float32(vector_MN) @ vh.T
    p.fill_diagonal_(0.0)
    p[:rank, :rank] = 0.0
    return (u @ p @ vh).to(vector_MN.dtype)


def norm(tensors: Mapping[str, Tensor]) -> float:
    """Length over all tensors together."""
    squares = [tensor.double().square() for tensor in tensors.values()]
    return math.sqrt(float(total(squares)))


class Merge(CacheFields, Method):
    """After task t the trained weights become a merge of what all tasks so far gave; see each rule.

    ema: theta <- merged + weight (theta - merged); average: the same with weight 1/t. arithmetic (arXiv 2212.04089): theta_0 +
    scale sum_i tau_i, with tau_i = theta_i - theta_0; ties (arXiv 2306.01708): theta_0 + scale TIES(tau_1..tau_t), trimmed per
    tensor, by peft; dare (arXiv 2311.03099): arithmetic of `drop_and_rescale`d vectors; opcm (arXiv 2501.09522): theta_0 +
    (lambda_(t-1) T + T') / lambda_t with T' the `orthogonal_part` of tau_t (linear layers inside the model; other parameters
    as they are), lambda_t such that the merged update is as long as the task vectors on average. Of LoRA, A and B are merged
    separately, which is not the merge of their product.
    """

    Settings = MergeSettings
    card = Card(
        summary="merge each task's weights into those before",
        paper="2212.04089",
        needs=("boundaries",),
        memory="1 copy of the trained weights; arithmetic, dare, opcm 2; ties one more for each task",
        # the rule is the method's name; each has amounts of its own, and the average none
        space={
            "weight": [0.1, 0.3, 0.5, 0.7, 0.9],
            "scale": [0.3, 0.5, 1.0],
            "density": [0.1, 0.2, 0.3, 0.5],
            "alpha": [0.3, 0.5, 0.7],
        },
        space_only_with={
            "weight": {"rule": ("ema",)},
            "scale": {"rule": ("arithmetic", "ties", "dare")},
            "density": {"rule": ("ties", "dare")},
            "alpha": {"rule": ("opcm",)},
        },
        requires_shared_weights=True,
        modifies_weights_after_task="it merges the weights after each task",
        strength_zero={"rule": "ema", "weight": 1.0},
        strong={"weight": 0.3},
    )

    def __init__(self, settings: MergeSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.base: Tensors = {}
        self.merged: Tensors = {}
        self.vectors: list[Tensors] = []
        self.norms: list[float] = []
        self.scale = 1.0

    @property
    def goes_on(self) -> bool:
        """Whether a task begins with the merged weights."""
        return self.settings.rule in ("ema", "average")

    def cache_fields(self, task_id: int) -> Mapping[str, Any] | None:
        # averages do nothing after the first task, and keep nothing of it
        if task_id == 0 and self.goes_on:
            return None
        return self.settings.model_dump()

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        weights = trainable(model)
        if self.goes_on or task_id == 0:
            self.base = copies(weights)
            return
        # a checkpoint lies on the CPU, and may come from a stream with fewer or more labels
        for name, saved in self.base.items():
            self.base[name] = with_new_units(saved, weights[name])
        self.merged = fitted(self.merged, weights)
        for i, vector in enumerate(self.vectors):
            self.vectors[i] = fitted(vector, weights)
        # every task is trained from the weights before training
        put(weights, self.base)

    @torch.no_grad()
    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        weights = trainable(model)
        if self.goes_on:
            if task_id > 0:
                self._average(weights, task_id)
            self.base = {}
            return
        vector = {}
        for name, weight in weights.items():
            vector[name] = weight.detach() - self.base[name]
        merged = self._merge(model, vector, task_id)
        put(weights, _sums(self.base, merged))

    def _average(self, weights: Mapping[str, nn.Parameter], task_id: int) -> None:
        share = 1 / (task_id + 1)
        if self.settings.rule == "ema":
            share = self.settings.weight
        averages = {}
        for name, weight in weights.items():
            # written so that a share of 1 leaves the new weight as it is, bit for bit
            averages[name] = weight + (1 - share) * (self.base[name] - weight)
        put(weights, averages)

    def _merge(self, model: nn.Module, vector: Tensors, task_id: int) -> Tensors:
        """theta^(t) - theta_0 for the new task vector; keeps what the next one needs."""
        s: MergeSettings = self.settings
        if s.rule == "ties":
            self.vectors.append(vector)
            return self._trimmed()
        if s.rule == "opcm":
            return self._opcm(model, vector)
        if s.rule == "dare":
            # a generator for each tensor: what one tensor loses does not depend on the others
            for name, change in vector.items():
                rng = generator(self.context.seed, "dare", task_id, name)
                vector[name] = drop_and_rescale(change, s.density, rng)
        merged = vector
        if self.merged:
            merged = _sums(self.merged, vector)
        self.merged = merged
        return _scaled(merged, s.scale)

    def _trimmed(self) -> Tensors:
        """The TIES merge of all tasks' vectors."""
        merged = {}
        for name in self.vectors[-1]:
            # one tensor at a time is made whole: what is trimmed depends on all its entries
            of_tasks = [whole(vector[name]) for vector in self.vectors]
            trimmed = _ties(of_tasks, self.settings.density)
            merged[name] = self.settings.scale * part_of(trimmed, self.vectors[-1][name])
        return merged

    def _opcm(self, model: nn.Module, vector: Tensors) -> Tensors:
        self.norms.append(norm(vector))
        if not self.merged:
            self.merged = vector
            return vector
        matrices = _inner_matrices(model)
        sums = {}
        for name, new in vector.items():
            part = new
            if name in matrices:
                # of sharded weights one matrix at a time is made whole
                part = orthogonal_part(whole(self.merged[name]), whole(new), self.settings.alpha)
                # a decomposition may differ in its last bits from worker to worker
                part = part_of(self.context.from_first_worker(part), new)
            sums[name] = self.scale * self.merged[name] + part
        mean_norm = sum(self.norms) / len(self.norms)
        self.scale = 1.0
        if mean_norm:
            self.scale = norm(sums) / mean_norm
        self.merged = sums
        # zero where the merged update vanishes: nothing to divide then
        if self.scale:
            self.merged = {}
            for name, summed in sums.items():
                self.merged[name] = summed / self.scale
        return self.merged

    def state_dict(self) -> State:
        if self.goes_on or not self.base:
            return {}
        vectors = {}
        for task_id, vector in enumerate(self.vectors):
            # a checkpoint's names are text
            vectors[str(task_id)] = vector
        return {"base": self.base, "merged": self.merged, "vectors": vectors, "norms": self.norms, "scale": self.scale}

    def load_state_dict(self, state: State) -> None:
        self.base = dict(state["base"])
        self.merged = dict(state["merged"])
        self.vectors = []
        # counted, since text sorts "10" before "2", and the order of a sum decides its last bits
        for task_id in range(len(state["vectors"])):
            self.vectors.append(dict(state["vectors"][str(task_id)]))
        self.norms = list(state["norms"])
        self.scale = float(state["scale"])


def _sums(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Tensors:
    sums = {}
    for name, tensor in b.items():
        sums[name] = a[name] + tensor
    return sums


def _scaled(tensors: Mapping[str, Tensor], factor: float) -> Tensors:
    return {name: factor * tensor for name, tensor in tensors.items()}


def _ties(vectors: Sequence[Tensor], density: float) -> Tensor:
    from peft.utils.merge_utils import ties

    return ties(list(vectors), torch.ones(len(vectors), device=vectors[0].device), density)


def _inner_matrices(model: nn.Module) -> set[str]:
    """Weights of linear layers that are no head: neither over a vocabulary nor over labels, nor tied to an embedding.

    A head has units that no task has trained. Its update has singular values of zero, whose directions are arbitrary.
    """
    embeddings = set()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            embeddings.add(id(module.weight))
    found = set()
    for name, module in model.named_modules():
        is_head = name.endswith(("lm_head", "classifier", "score"))
        if is_linear(module) and id(module.weight) not in embeddings and not is_head:
            found.add(f"{name}.weight")
    return found
