"""What is kept of the classes: sums and counts over tasks and workers, and answers among classes that have examples."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from methods.base import Context, Settings
from methods.features.frozen import FrozenFeatures


class BySum(FrozenFeatures):
    """The score of a class is the product of its sum and the feature."""

    def feature_scores(self, features_Bd: Tensor) -> Tensor:
        assert features_Bd.dtype == torch.float64
        return features_Bd @ self.sums_Kd.T


def rows(*values: float) -> Tensor:
    """Class sums of width 1."""
    return torch.tensor(values, dtype=torch.float64)[:, None]


def counts(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_model_is_frozen_with_its_head() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    assert BySum(Settings(), Context(0)).prepare(model, list(model[1].parameters())) is model
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_sums_grow_by_the_labels_of_each_task() -> None:
    """The second task brings a third class, and more examples of the first."""
    method = BySum(Settings(), Context(0))
    method.add(rows(1.0, 2.0), counts(3, 4))
    method.add(rows(10.0, 0.0, 30.0), counts(5, 0, 6))
    assert method.sums_Kd.tolist() == [[11.0], [2.0], [30.0]]
    assert method.counts_K.tolist() == [8, 4, 6]


def test_a_class_without_examples_never_wins() -> None:
    method = BySum(Settings(), Context(0))
    method.add(rows(-1.0, 100.0, -2.0), counts(1, 0, 1))
    scores_BK = method.class_scores(torch.tensor([[1.0], [2.0]]))
    assert scores_BK.tolist() == [[-1.0, -torch.inf, -2.0], [-2.0, -torch.inf, -4.0]]


def test_before_the_first_task_there_is_nothing_to_answer_and_nothing_to_keep() -> None:
    method = BySum(Settings(), Context(0))
    assert method.class_scores(torch.ones(2, 1)).shape == (2, 0)
    assert method.state_dict() == {}


def test_what_is_kept_goes_on_in_another_process() -> None:
    first = BySum(Settings(), Context(0))
    first.add(rows(1.0, 2.0), counts(3, 4))
    second = BySum(Settings(), Context(0))
    second.load_state_dict(first.state_dict())
    second.add(rows(10.0, 20.0), counts(1, 1))
    assert (second.sums_Kd.tolist(), second.counts_K.tolist()) == ([[11.0], [22.0]], [4, 5])
    assert first.sums_Kd.tolist() == [[1.0], [2.0]]


def test_sums_have_the_width_of_the_models_states_in_float64() -> None:
    """In float32, a hundred million and one is a hundred million."""
    model = nn.Linear(1, 1)
    model.config = SimpleNamespace(hidden_size=7)  # type: ignore[assignment]
    assert BySum.width(model) == 7
    zeros = BySum.zeros(model, 2, 3)
    assert zeros.shape == (2, 3)
    assert (zeros + 1e8 + 1 - 1e8).eq(1).all()


def test_a_subclass_must_say_how_it_scores() -> None:
    method = FrozenFeatures(Settings(), Context(0))
    method.add(rows(1.0), counts(1))
    with pytest.raises(NotImplementedError):
        method.class_scores(torch.ones(1, 1))
