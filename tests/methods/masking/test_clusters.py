"""Balanced clusters: sizes, obvious groups, the assignment's rule by hand, and which clusters are masked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from methods import generator, trainable
from methods.masking.clusters import (
    balanced_assignment,
    balanced_kmeans,
    clustered_units_to_mask,
    spread_start,
)
from methods.masking.magnitudes import example_magnitudes
from methods.masking.migu import Migu
from methods.masking.output_units import maskable_weights
from orchestrator.training.learner import Learner
from orchestrator.training.task import TaskBatches, train_task
from tests.methods.masking.masked import masked_learner, moved_units_of


@pytest.mark.parametrize(("points", "clusters"), [(12, 3), (13, 4), (64, 16), (10, 10), (7, 2), (5, 9)])
def test_sizes_differ_by_one_at_most(points: int, clusters: int) -> None:
    data = torch.randn(points, 5, generator=generator("points"))
    assigned = balanced_kmeans(data, clusters, generator("rng"))
    sizes = torch.bincount(assigned)
    assert len(sizes) == min(points, clusters)
    assert sizes.max() - sizes.min() <= 1
    assert torch.equal(assigned, balanced_kmeans(data, clusters, generator("rng")))


def test_obvious_groups_are_found() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    truth = torch.tensor([0, 1, 2, 2, 1, 0, 0, 1, 2])
    data = centres[truth] + 0.1 * torch.randn(9, 2, generator=generator("noise"))
    assigned = balanced_kmeans(data, 3, generator("rng"))
    together = assigned[:, None] == assigned[None, :]
    assert torch.equal(together, truth[:, None] == truth[None, :])


def test_the_start_is_a_point_of_every_far_group() -> None:
    """Eight groups, one after the other: neither the first points nor points drawn at random would hit them all."""
    truth = torch.arange(8).repeat_interleave(5)
    data = 100 * torch.eye(8)[truth] + 0.1 * torch.randn(40, 8, generator=generator("noise"))
    for seed in range(5):
        centres = spread_start(data, 8, generator("rng", seed))
        chosen = [int((data == centre).all(1).nonzero()) for centre in centres]
        assert sorted(truth[chosen].tolist()) == list(range(8))


def test_the_next_centre_is_drawn_by_its_squared_distance() -> None:
    """From 0, the points 1 and 3 are drawn with probabilities 1/10 and 9/10."""
    data = torch.tensor([[0.0], [1.0], [3.0]])
    starts = [spread_start(data, 2, generator("rng", seed)).flatten().tolist() for seed in range(1500)]
    seconds = [second for first, second in starts if first == 0]
    assert len(seconds) > 400
    assert seconds.count(3.0) / len(seconds) == pytest.approx(0.9, abs=0.05)


def test_clusters_begin_from_the_seeds_start() -> None:
    """From a start that is no draw, such as zeros or the first points, every seed would end at the same clusters."""
    data = torch.randn(30, 3, generator=generator("points"))
    found = {tuple(balanced_kmeans(data, 3, generator("rng", seed)).tolist()) for seed in range(6)}
    assert len(found) > 1


def test_clusters_settle_about_their_own_means() -> None:
    data = torch.randn(24, 2, generator=generator("points"))
    for seed in range(4):
        assigned = balanced_kmeans(data, 2, generator("rng", seed))
        means = torch.stack([data[assigned == k].mean(0) for k in range(2)])
        assert torch.equal(balanced_assignment(torch.cdist(data, means)), assigned)


@pytest.mark.parametrize("cluster", ["weights", "comagnitude"])
def test_clusters_are_made_of_normalised_weights_or_magnitudes(
    cluster: str, learner_of: Callable[..., Learner]
) -> None:
    learner = masked_learner(learner_of, settings={"cluster": cluster, "clusters": 4}, stream={"max_train": 24})
    module = learner.family.module
    learner.family.at_task(0, 3)
    (_, migu) = learner.stack.parts[1]
    assert isinstance(migu, Migu)
    batches = TaskBatches(learner, learner.features(0), 0)
    migu.before_task(module, 2, batches)
    rng = generator(7, "clusters", 2)
    weights = maskable_weights(module)
    magnitudes = example_magnitudes(migu.context, module, weights, batches, 100, False)
    assert len(migu.clusters) == len(weights)
    for maskable, sizes_Nd, found in zip(weights, magnitudes, migu.clusters, strict=True):
        points = sizes_Nd.T / sizes_Nd.T.norm(dim=1, keepdim=True)
        if cluster == "weights":
            points = maskable.weight.detach() / maskable.weight.detach().norm(dim=0)
        assert torch.equal(found, balanced_kmeans(points, 4, rng)), maskable.name


def test_equal_points_are_still_shared_out() -> None:
    assert torch.bincount(balanced_kmeans(torch.ones(9, 2), 3, generator("rng"))).tolist() == [3, 3, 3]


def test_the_assignment_by_hand() -> None:
    """All prefer cluster 0, which takes the nearest two; of the rest, points 1 and 3 go to 1; the fifth where there is room."""
    distance = torch.tensor([[1.0, 9.0], [3.0, 4.0], [2.0, 9.0], [5.0, 6.0], [4.0, 8.0]])
    # turn 1: 0 takes points 0, 2 (1.0, 2.0). turn 2: 1, 3, 4 ask cluster 1, which takes 1 and 3 (4.0, 6.0).
    # then there is room for one more in each: point 4 goes to its nearest, 0
    assert balanced_assignment(distance).tolist() == [0, 1, 0, 1, 0]


def test_whole_clusters_of_small_mean_importance_are_masked() -> None:
    importance = torch.tensor([1.0, 9.0, 2.0, 8.0, 5.0, 4.0])
    cluster = torch.tensor([0, 0, 1, 2, 1, 2])  # means 5, 3.5, 6
    assert clustered_units_to_mask(importance, 1, cluster).tolist() == [], "no room for a whole cluster"
    assert clustered_units_to_mask(importance, 2, cluster).tolist() == [2, 4]
    assert clustered_units_to_mask(importance, 3, cluster).tolist() == [2, 4]
    assert clustered_units_to_mask(importance, 5, cluster).tolist() == [0, 1, 2, 4]
    # the mean, not the sum, which would be the smaller of one unit
    uneven = clustered_units_to_mask(torch.tensor([3.0, 2.0, 2.0, 2.0]), 3, torch.tensor([0, 1, 1, 1]))
    assert uneven.tolist() == [1, 2, 3]


@pytest.mark.parametrize("cluster", ["weights", "comagnitude"])
def test_clusters_of_one_unit_are_plain_migu(cluster: str, learner_of: Callable[..., Learner]) -> None:
    plain = masked_learner(learner_of, stream={"max_train": 16})
    alone = masked_learner(learner_of, stream={"max_train": 16}, settings={"cluster": cluster, "clusters": 64})
    for learner in (plain, alone):
        train_task(learner, 0, lambda event: None)
    for n, p in trainable(plain.family.module).items():
        assert torch.equal(p, trainable(alone.family.module)[n]), n


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("cluster", ["weights", "comagnitude"])
def test_whole_clusters_move(cluster: str, tuning: str, learner_of: Callable[..., Learner]) -> None:
    """8 clusters of 4 units, 70 % masked: room for 5 of them in 22 units, so 20 stay and 12 move."""
    units = moved_units_of(
        masked_learner(learner_of, tuning, settings={"cluster": cluster, "clusters": 8, "ratio": 0.3})
    )
    end = ".v.weight" if tuning == "full" else ".v.lora_B.default.weight"
    values = [n for name, n in units.items() if name.endswith(end)]
    assert len(values) == 6
    assert set(values) == {12}
