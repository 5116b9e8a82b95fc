"""Clusters of output units that are masked together (arXiv 2406.17245, cluster masks).

Shapes: N points of D numbers, K clusters, O output units.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from methods.shared.tensors import at_least_float32

ROUNDS = 10  # of assigning and averaging; balanced assignment settles early


def balanced_kmeans(points_ND: Tensor, clusters: int, rng: torch.Generator) -> Tensor:
    """[N]: the cluster of each point; sizes differ by one at most. More clusters than points: one point each.

    Lloyd's rounds from a seeded k-means++ start. Points are assigned by `balanced_assignment`.
    """
    # on the CPU, where sums have one order on every machine
    points = at_least_float32(points_ND.detach()).cpu()
    clusters = min(clusters, len(points))
    centres = spread_start(points, clusters, rng)
    assigned = balanced_assignment(torch.cdist(points, centres))
    for _ in range(ROUNDS):
        totals = torch.zeros_like(centres).index_add_(0, assigned, points)
        centres = totals / torch.bincount(assigned, minlength=clusters)[:, None]
        before = assigned
        assigned = balanced_assignment(torch.cdist(points, centres))
        if torch.equal(before, assigned):
            break
    return assigned


def spread_start(points: Tensor, clusters: int, rng: torch.Generator) -> Tensor:
    """k-means++: each next centre is a point drawn with probability proportional to its squared distance to the others."""
    chosen = [int(torch.randint(len(points), (1,), generator=rng))]
    nearest = torch.full((len(points),), torch.inf, dtype=points.dtype)
    while len(chosen) < clusters:
        nearest = torch.minimum(nearest, (points - points[chosen[-1]]).square().sum(1))
        nearest[chosen] = 0
        weights = nearest
        if not nearest.sum() > 0:
            # all points that are left equal a centre: any of them will do
            weights = torch.ones_like(nearest).index_fill_(0, torch.tensor(chosen), 0)
        chosen.append(int(torch.multinomial(weights, 1, generator=rng)))
    return points[chosen]


def balanced_assignment(distance_NK: Tensor) -> Tensor:
    """[N]: for each point a near cluster, every cluster taking floor(N / K) points or one more.

    In turns, each point that is left asks the nearest cluster with room, and a cluster takes the nearest that ask.
    """
    points, clusters = distance_NK.shape
    assigned = torch.full((points,), -1, dtype=torch.long)
    # first every cluster is filled to floor(N / K); then what is left goes one to a cluster
    for room in (points // clusters, 1):
        room_K = torch.full((clusters,), room, dtype=torch.long)
        while (left := (assigned < 0).nonzero().flatten()).numel() and room_K.any():
            open_distance = distance_NK[left].masked_fill(room_K == 0, torch.inf)
            nearest, asked = open_distance.min(dim=1)
            for cluster in asked.unique().tolist():
                asking = (asked == cluster).nonzero().flatten()
                taken = asking[torch.argsort(nearest[asking], stable=True)][: int(room_K[cluster])]
                assigned[left[taken]] = cluster
                room_K[cluster] -= len(taken)
    return assigned


def clustered_units_to_mask(importance_O: Tensor, num_masked: int, cluster_O: Tensor) -> Tensor:
    """Indices of the units of the clusters with the smallest mean importance, as many as `num_masked` has room for."""
    cluster_O = cluster_O.to(importance_O.device)
    sizes = torch.bincount(cluster_O)
    means = torch.zeros(len(sizes), dtype=importance_O.dtype, device=importance_O.device)
    means = means.index_add_(0, cluster_O, importance_O) / sizes
    order = torch.argsort(means, stable=True)
    masked = order[sizes[order].cumsum(0) <= num_masked]
    return torch.isin(cluster_O, masked).nonzero().flatten()


def clusters_of_layers(points: Sequence[Tensor], clusters: int, rng: torch.Generator) -> list[Tensor]:
    """The cluster of each unit, for each layer's points in turn: one generator draws for all of them."""
    found = []
    for points_of_layer in points:
        found.append(balanced_kmeans(points_of_layer, clusters, rng).to(points_of_layer.device))
    return found
