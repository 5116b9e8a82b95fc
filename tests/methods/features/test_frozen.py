"""What is kept of the classes: sums and counts over tasks, workers and a stop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from methods.base import Context, Settings
from methods.features.frozen import FrozenFeatures


class FirstFeature(FrozenFeatures):
    """Scores every class by the mean of its own features' first entry."""

    def feature_scores(self, features_Bd: Tensor) -> Tensor:
        means_K = self.sums_Kd[:, 0] / self.counts_K.clamp(min=1)
        return features_Bd[:, :1] * means_K


def kept(sums: list[list[float]], counts: list[float]) -> FirstFeature:
    method = FirstFeature(Settings(), Context(0))
    method.add(torch.tensor(sums, dtype=torch.float64), torch.tensor(counts, dtype=torch.float64))
    return method


def test_a_later_task_adds_to_old_classes_and_brings_new_ones() -> None:
    method = kept([[2.0, 1.0], [4.0, 0.0]], [1.0, 2.0])
    method.add(
        torch.tensor([[1.0, 1.0], [0.0, 0.0], [9.0, 3.0]], dtype=torch.float64),
        torch.tensor([1.0, 0.0, 3.0], dtype=torch.float64),
    )
    assert method.sums_Kd.tolist() == [[3.0, 2.0], [4.0, 0.0], [9.0, 3.0]]
    assert method.counts_K.tolist() == [2.0, 2.0, 3.0]


def test_a_class_without_examples_never_wins() -> None:
    method = kept([[-2.0, 0.0], [0.0, 0.0], [-6.0, 0.0]], [1.0, 0.0, 2.0])
    scores_BK = method.class_scores(torch.tensor([[1.0, 0.0], [0.5, 0.0]]))
    assert scores_BK.tolist() == [[-2.0, -torch.inf, -3.0], [-1.0, -torch.inf, -1.5]]
    assert scores_BK.dtype == torch.float64


def test_before_the_first_task_there_is_no_class() -> None:
    method = FirstFeature(Settings(), Context(0))
    assert method.class_scores(torch.ones(3, 2)).shape == (3, 0)
    assert method.state_dict() == {}


def test_a_stop_forgets_nothing() -> None:
    method = kept([[2.0, 1.0]], [4.0])
    again = FirstFeature(Settings(), Context(0))
    again.load_state_dict(method.state_dict())
    features = torch.tensor([[3.0, 0.0]])
    assert again.class_scores(features).tolist() == method.class_scores(features).tolist() == [[1.5]]


@pytest.mark.parametrize("workers", [1, 3])
def test_what_workers_found_is_summed(workers: int) -> None:
    """Each worker is given the mean over all of them, of which the sum follows."""
    found = torch.tensor([6.0, 3.0])
    context = Context(0, mean_over_workers=lambda tensor: tensor / workers, workers=workers)
    assert FirstFeature(Settings(), context).sum_over_workers(found).tolist() == [6.0, 3.0]


def test_nothing_of_the_model_trains() -> None:
    model = nn.Linear(2, 2)
    prepared = FirstFeature(Settings(), Context(0)).prepare(model, [model.bias])
    assert not any(parameter.requires_grad for parameter in prepared.parameters())
