"""Numbers about what a method did, from tensors that it has anyway. They influence nothing.

Shapes: T tasks, d rows of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def kept_share(masked_d: Tensor, steps: int) -> float:
    """Mean share of a layer's rows that a step kept; masked_d counts the steps that masked each row."""
    return 1 - float(masked_d.sum()) / (len(masked_d) * steps) if steps else 1.0


def kept_by_samples(magnitude_Nd: Tensor, masked_rows: int) -> Tensor:
    """[d]: how many of the N samples would keep each row, if each sample's `masked_rows` smallest rows were masked."""
    masked = torch.argsort(magnitude_Nd, dim=1, stable=True)[:, :masked_rows]
    counts = torch.bincount(masked.flatten(), minlength=magnitude_Nd.shape[1])
    return (len(magnitude_Nd) - counts).to(torch.int16)


def kept_overlap(kept_T: Sequence[Mapping[str, Tensor]]) -> list[list[float]]:
    """[T, T]: how far two tasks keep the same rows, averaged over the layers that both have; 1 on the diagonal.

    kept_T[t][layer] [d] counts, for each row, the samples of task t that keep it. With the shares p = counts / sum of counts,
    the overlap is sum_k min(p_k, q_k): for one sample each, the share of the kept rows that is kept in both (arXiv 2406.17245,
    section 5.3, compares tasks on 100 samples each).
    """

    def overlap(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
        shares = [(a[name].double() / a[name].sum(), b[name].double() / b[name].sum()) for name in a if name in b]
        return sum(float(torch.minimum(p, q).sum()) for p, q in shares) / len(shares)

    return [[overlap(a, b) for b in kept_T] for a in kept_T]


def moved_rows(before: Tensor, after: Tensor, rows: Tensor) -> int:
    """How many of the given rows (a boolean for each) differ at all: by momentum or weight decay, if all were masked."""
    return int(((before != after).flatten(1).any(dim=1) & rows).sum())


def update_norm(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    """Length of the update over all tensors together."""
    return math.sqrt(sum(float((after[name] - old).double().square().sum()) for name, old in before.items()))


def leaked_share(updates: Sequence[tuple[Tensor, Tensor]]) -> float:
    """||dW M|| / ||dW|| over all layers: the share of the update that inputs in the span of M see. 0 without an update."""
    leaked = sum(float((update @ basis).double().square().sum()) for update, basis in updates)
    whole = sum(float(update.double().square().sum()) for update, _ in updates)
    return math.sqrt(leaked / whole) if whole else 0.0
