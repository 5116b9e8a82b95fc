"""EPI: distances by hand, and means and covariance against numpy over each text alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from methods import Context
from methods.routing.epi import Epi, EpiSettings, mahalanobis, precision
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES


def test_distances_by_hand() -> None:
    queries = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    means = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    inverse = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    # (1, 2): 2 + 2 · 2 + 12; (0, 2): 12; (-1, 0): 2
    assert mahalanobis(queries, means, inverse).tolist() == [[18.0, 12.0], [0.0, 2.0]]


def test_the_covariance_is_shrunk_towards_its_mean_variance() -> None:
    # covariance diag(6, 2), mean variance 4: half of each gives diag(5, 3)
    inverse = precision(torch.diag(torch.tensor([12.0, 4.0])), 2.0, 0.5)
    torch.testing.assert_close(inverse, torch.diag(torch.tensor([1 / 5, 1 / 3])))


def test_the_spread_decides_not_the_distance_alone() -> None:
    epi = Epi(EpiSettings(shrinkage=1e-9), Context(0))
    epi.means = [torch.tensor([0.0, 0.0]).double(), torch.tensor([3.0, 1.0]).double()]
    epi.counts = [1.0, 1.0]
    epi.scatter_dd = torch.diag(torch.tensor([200.0, 0.02])).double()
    # nearer to the second by length, but where the texts vary least it lies on the first one's side
    assert epi.nearest(torch.tensor([[2.0, 0.1], [2.0, 0.9]])).tolist() == [0, 1]


def unit_means(learner: Learner, task: int) -> np.ndarray:
    """Each text's mean last state at length 1, one text at a time, of the model without its adapters."""
    tuning = learner.stack.tuning
    assert isinstance(tuning, Epi)
    found = []
    learner.family.module.eval()
    for feature in learner.features(task):
        ids = torch.tensor([feature["source"]])
        with torch.no_grad(), tuning.routing.off():
            states = tuning.reader.module(input_ids=ids).last_hidden_state[0].double().numpy()
        mean = states.mean(0)
        found.append(mean / np.linalg.norm(mean))
    return np.array(found)


@pytest.mark.parametrize("model", FAMILIES)
def test_two_tasks_against_numpy(model: str, learner_of: Callable[..., Learner]) -> None:
    settings = {"name": "epi", "r": 2, "shrinkage": 0.1}
    learner = learner_of(model=model, methods=[{"tuning": settings}], stream={"max_train": 12}, training={"lr": 0.1})
    for task in range(2):
        train_task(learner, task, lambda event: None)
    queries = [unit_means(learner, task) for task in range(2)]
    tuning = learner.stack.tuning
    assert isinstance(tuning, Epi)
    means = [q.mean(0) for q in queries]
    scatter = sum((q - m).T @ (q - m) for q, m in zip(queries, means, strict=True))
    for found, expected in zip(tuning.means, means, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(tuning.scatter_dd, scatter, atol=1e-5)
    covariance = 0.9 * scatter / 24 + 0.1 * np.trace(scatter / 24) / len(scatter) * np.eye(len(scatter))
    texts = np.concatenate(queries)
    distances = []
    for mean in means:
        distances.append(np.einsum("nd,de,ne->n", texts - mean, np.linalg.inv(covariance), texts - mean))
    expected_tasks = np.array(distances).argmin(0)
    chosen = tuning.nearest(torch.tensor(texts, dtype=torch.float32)).numpy()
    np.testing.assert_array_equal(chosen, expected_tasks)
    assert set(chosen) == {0, 1}
    features = [feature for task in range(2) for feature in learner.features(task)]
    learner.family.module.eval()
    right = 0
    for feature, task in zip(features, expected_tasks, strict=True):
        ids = torch.tensor([feature["source"]])
        with torch.no_grad():
            tuning.reader.module(input_ids=ids)
        assert tuning.routing.gates_BE is not None
        right += int(tuning.routing.gates_BE[0].tolist() == [1.0 - task, float(task)])
    assert right == 24, "a text goes to the adapter of the nearest task, with weight one"


def test_while_a_task_is_trained_its_own_adapter_acts(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(methods=[{"tuning": "epi"}], stream={"max_train": 12})
    train_task(learner, 0, lambda event: None)
    tuning = learner.stack.tuning
    assert isinstance(tuning, Epi)
    learner.stack.grow(learner.family.module, 2)
    learner.family.module.train()
    learner.forward(learner.family.module, learner.family.collate(learner.features(0)[:2]))
    assert tuning.routing.gates_BE is not None
    assert tuning.routing.gates_BE.tolist() == [[0.0, 1.0], [0.0, 1.0]]
