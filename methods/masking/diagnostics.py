"""Numbers about what a method did, from tensors that it has anyway. They influence nothing.

Shapes: T tasks, N samples, d output units of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from methods.shared.shards import sum_of_parts


def kept_share(masked_steps_d: Tensor, steps: int) -> float:
    """Mean share of a layer's units that a step kept; masked_steps_d counts the steps that masked each unit."""
    if not steps:
        return 1.0
    return 1 - float(masked_steps_d.sum()) / (len(masked_steps_d) * steps)


def kept_by_samples(magnitude_Nd: Tensor, num_masked: int) -> Tensor:
    """[d]: how many of the N samples would keep each unit, if each sample's `num_masked` smallest units were masked."""
    masked = torch.argsort(magnitude_Nd, dim=1, stable=True)[:, :num_masked]
    counts = torch.bincount(masked.flatten(), minlength=magnitude_Nd.shape[1])
    # a checkpoint holds these counts for every layer and task; there are at most 100 samples
    return (len(magnitude_Nd) - counts).to(torch.int16)


def kept_overlap(kept_T: Sequence[Mapping[str, Tensor]]) -> list[list[float]]:
    """[T, T]: how far two tasks keep the same units, averaged over the layers that both have; 1 on the diagonal.

    kept_T[t][layer] [d] counts, for each unit, the samples of task t that keep it. With the shares p = counts / sum of counts,
    the overlap is sum_k min(p_k, q_k): for one sample each, the share of the kept units that is kept in both (arXiv
    2406.17245, section 5.3, compares tasks on 100 samples each).
    """
    overlaps = []
    for kept_a in kept_T:
        overlaps.append([_overlap(kept_a, kept_b) for kept_b in kept_T])
    return overlaps


def _overlap(kept_a: Mapping[str, Tensor], kept_b: Mapping[str, Tensor]) -> float:
    total = 0.0
    num_layers = 0
    for name in kept_a:
        if name in kept_b:
            p = kept_a[name].double() / kept_a[name].sum()
            q = kept_b[name].double() / kept_b[name].sum()
            total += float(torch.minimum(p, q).sum())
            num_layers += 1
    return total / num_layers


def moved_units(before: Tensor, after: Tensor, chosen: Tensor) -> int:
    """How many of the chosen units (a boolean for each) differ at all: by momentum or weight decay, if all were masked."""
    has_moved = (before != after).flatten(1).any(dim=1)
    return int((has_moved & chosen).sum())


def update_norm(before: Mapping[str, Tensor], after: Mapping[str, Tensor], like: Tensor) -> float:
    """Length of the update over all tensors together; where weights such as `like` are sharded, they are this worker's parts."""
    square = torch.zeros((), dtype=torch.float64, device=like.device)
    for name, old in before.items():
        square += (after[name] - old).double().square().sum().to(like.device)
    return math.sqrt(float(sum_of_parts(square, like)))


def leaked_share(updates: Sequence[tuple[Tensor, Tensor]], like: Tensor) -> float:
    """||dW M|| / ||dW|| over all layers: the share of the update that inputs in the span of M see. 0 without an update.

    Where weights such as `like` are sharded, each dW is of the rows that this worker holds.
    """
    sums = torch.zeros(2, dtype=torch.float64, device=like.device)
    for update, basis in updates:
        sums[0] += (update @ basis).double().square().sum()
        sums[1] += update.double().square().sum()
    leaked, whole = sum_of_parts(sums, like).tolist()
    if not whole:
        return 0.0
    return math.sqrt(leaked / whole)
