"""FW-Merging: after each task, Frank-Wolfe steps between the tasks' models, led by old examples (arXiv 2503.12649).

Shapes: t models so far, L parameter tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.base import Context, Example, Method, Settings, State, trainable
from methods.batch import Batch
from methods.replay.memory import draw, gradient_of, losses, remembered
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card
from methods.shared.snapshots import copies, put, with_new_units

Tensors = dict[str, Tensor]


class FwMergingSettings(Settings):
    """Whose models are candidates, how they are chosen, and on which examples."""

    begin: Literal["base", "merged"] = Field(
        "base", description="where a task's training begins: the weights before training, or the merged ones"
    )
    granularity: Literal["layer", "model"] = Field(
        "layer", description="what one choice is made for: each parameter tensor, or all together"
    )
    steps: int = Field(10, ge=1, description="of Frank-Wolfe after each task")
    step_size: float = Field(1.0, ge=0, le=1, description="factor on gamma_k = 2 / (k + 2)")
    fraction: float = Field(0.02, gt=0, le=1, description="share of each task's examples that is kept")
    examples: int = Field(256, ge=1, description="kept examples for a step's gradient; all where fewer are kept")


def inner_products(gradients: Mapping[str, Tensor], candidates: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """[L, t]: of each tensor's gradient with that tensor of each candidate."""
    rows = []
    for name, gradient in gradients.items():
        # models differ by little beside their own length: in float32 their products with a gradient may not differ at all
        g = gradient.double().flatten()
        products = []
        for candidate in candidates:
            products.append(torch.dot(g, candidate[name].double().flatten()))
        rows.append(torch.stack(products))
    return torch.stack(rows)


def choices(products_Lt: Tensor, granularity: str) -> list[int | None]:
    """For each tensor the candidate of the least inner product; None where all are equal, so that none leads downhill."""
    if granularity == "model":
        products_Lt = products_Lt.sum(0).expand_as(products_Lt)
    differs_L = products_Lt.amin(1) < products_Lt.amax(1)
    chosen: list[int | None] = []
    for best, differs in zip(products_Lt.argmin(1).tolist(), differs_L.tolist(), strict=True):
        chosen.append(best if differs else None)
    return chosen


class FwMerging(CacheFields, Method):
    """After task t, `steps` times: theta_(k+1) = theta_k + gamma_k (s_k - theta_k), gamma_k = step_size * 2 / (k + 2).

    s_k is the candidate of the least <grad L(theta_k), theta_i>, theta_i being the weights right after training task i <= t;
    L is the mean loss on examples drawn for each step, none twice, from what is kept of tasks 1 to t, in evaluation mode.
    With `granularity: layer`, the default, each tensor has its own s_k: so it is in the released code for language models, and
    the linear objective becomes at least as small as by one choice for all. A tensor that no kept example has a gradient
    for stays as it is.

    Candidates are trained from the weights before training, as the paper's are, and theta_0 is their mean; with `begin: merged`
    (ours) each task goes on from the merged weights, and theta_0 is the newest candidate, which knows all tasks. Departures: the
    released code begins at a TIES merge and lets it be a candidate (a mean of candidates is never better than the best of
    them), chooses by cosine for each tensor, and takes each step by TIES too; we follow the paper's formula. Of LoRA, A and
    B are merged separately. The first task's weights are the only candidate, and stay.
    """

    Settings = FwMergingSettings
    card = Card(
        summary="Frank-Wolfe steps between the tasks' weights, down the loss on old examples",
        paper="2503.12649",
        needs=("boundaries", "old data"),
        memory="a share of each task's examples; 1 copy of the trained weights for each task, with base one more",
        kept_share="fraction",
        space={"step_size": [0.1, 0.3, 1.0], "steps": [5, 10, 20]},
        requires_shared_weights=True,
        modifies_weights_after_task="it merges the weights after each task",
        strength_zero={"begin": "merged", "step_size": 0.0},
        strong={"begin": "base", "step_size": 1.0, "fraction": 0.5},
        # by two steps a task, the best of all models may stay the same one, and a first gamma of 1 would give it alone
        quick={"step_size": 0.5},
        not_sharded="its products of updates and gradients are over whole weights",
    )

    def __init__(self, settings: FwMergingSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.base: Tensors = {}
        self.candidates: list[Tensors] = []
        self.shares: list[float] = []
        self.gaps: list[float] = []

    def cache_fields(self, task_id: int) -> Mapping[str, Any] | None:
        # the first task is trained plainly, but what is kept of it depends on where the next one begins
        if task_id == 0:
            return self.settings.model_dump(include={"begin"})
        return self.settings.model_dump()

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        weights = trainable(model)
        if self.settings.begin == "base" and task_id == 0:
            self.base = copies(weights)
        # a checkpoint lies on the CPU, and may come from a stream with fewer or more labels
        for kept in (self.base, *self.candidates):
            for name, saved in kept.items():
                kept[name] = with_new_units(saved, weights[name])
        if self.base:
            put(weights, self.base)

    @torch.no_grad()
    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        weights = trainable(model)
        self.candidates.append(copies(weights))
        shares_Lt = torch.zeros(len(weights), task_id + 1, dtype=torch.float64)
        shares_Lt[:, task_id] = 1.0
        if self.base:
            put(weights, _mean(self.candidates))
            shares_Lt.fill_(1 / (task_id + 1))
        self.gaps = []
        if task_id > 0:
            self._descend(model, task_id, shares_Lt)
        sizes_L = torch.tensor(list(map(torch.numel, weights.values())), dtype=torch.float64)
        self.shares = (sizes_L @ shares_Lt / sizes_L.sum()).tolist()

    def _descend(self, model: nn.Module, task_id: int, shares_Lt: Tensor) -> None:
        """All steps of Frank-Wolfe; `shares_Lt`, which says what the weights are made of, follows them."""
        s: FwMergingSettings = self.settings
        weights = trainable(model)
        kept = remembered(self.context, task_id + 1, s.fraction)
        for k in range(s.steps):
            gamma = s.step_size * 2 / (k + 2)
            gradients = self._gradients(model, kept, task_id, k)
            products_Lt = inner_products(gradients, self.candidates)
            # where two candidates are equally good, rounding must not let two workers choose differently
            products_Lt = self.context.from_first_worker(products_Lt)
            chosen = choices(products_Lt, s.granularity)
            self.gaps.append(self._gap(products_Lt.cpu(), shares_Lt, chosen))
            for layer, (name, weight) in enumerate(weights.items()):
                best = chosen[layer]
                if best is None:
                    continue
                # exact at both ends: gamma 1 gives the candidate bit for bit, 0 leaves the weight
                weight.lerp_(self.candidates[best][name], gamma)
                shares_Lt[layer] *= 1 - gamma
                shares_Lt[layer, best] += gamma

    def _gradients(self, model: nn.Module, kept: Sequence[Example], task_id: int, k: int) -> Tensors:
        count = min(self.settings.examples, len(kept))
        drawn = draw(kept, count, self.context.seed, "fw_merging", task_id, k)
        return gradient_of(self.context, model, losses(self.context, model, drawn))

    @staticmethod
    def _gap(products_Lt: Tensor, shares_Lt: Tensor, chosen: Sequence[int | None]) -> float:
        """<grad L, theta - s>: how much less the loss could be at most, were it convex."""
        gap = 0.0
        for products_t, shares_t, best in zip(products_Lt, shares_Lt, chosen, strict=True):
            if best is not None:
                gap += float(products_t @ shares_t - products_t[best])
        return gap

    def state_dict(self) -> State:
        if not self.candidates:
            return {}
        candidates = {}
        for task_id, candidate in enumerate(self.candidates):
            # a checkpoint's names are text
            candidates[str(task_id)] = candidate
        return {"base": self.base, "candidates": candidates}

    def load_state_dict(self, state: State) -> None:
        self.base = dict(state["base"])
        self.candidates = []
        # counted, since text sorts "10" before "2"
        for task_id in range(len(state["candidates"])):
            self.candidates.append(dict(state["candidates"][str(task_id)]))

    def diagnostics(self) -> Mapping[str, float | list[Any]]:
        """`shares`: how much of the merged weights each task's are; `gaps`: the Frank-Wolfe gap before each step."""
        return {"shares": self.shares, "gaps": self.gaps}


def _mean(candidates: Sequence[Tensors]) -> Tensors:
    means = {}
    for name in candidates[-1]:
        means[name] = torch.stack([candidate[name] for candidate in candidates]).mean(0)
    return means
