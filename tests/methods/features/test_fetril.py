"""FeTrIL: moved features by hand, the classifier against scipy's minimum, and a run against both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

from methods.base import Context
from methods.features.fetril import Fetril, FetrilSettings, fitted_classifier, moved_features
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.training.learner import Learner
from orchestrator.training.sequence import run_sequence

Array = NDArray[np.float64]


def test_old_classes_get_the_features_of_the_nearest_new_one_moved_to_their_mean() -> None:
    features = torch.tensor([[4.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    classes = torch.tensor([1, 1, 3, 3])
    # class 0 points where class 3 does, class 2 where class 1 does, though by distance it would be the other way round
    means = torch.tensor([[0.1, 9.0], [3.0, 0.0], [0.5, 0.1], [0.0, 2.0]])
    moved, of_class = moved_features(features, classes, means, [0, 2])
    torch.testing.assert_close(moved, torch.tensor([[0.1, 8.0], [0.1, 10.0], [1.5, 0.1], [-0.5, 0.1]]))
    assert of_class.tolist() == [0, 0, 2, 2]
    for old_class in (0, 2):
        torch.testing.assert_close(moved[of_class == old_class].mean(0), means[old_class])
    assert len(moved_features(features, classes, means, [])[0]) == 0


def by_scipy(points: Array, targets: Array, num_classes: int, c: float) -> tuple[Array, Array]:
    """The same minimum by another implementation of another algorithm."""
    size = points.shape[1]

    def objective(flat: Array) -> float:
        weight = flat[: num_classes * size].reshape(num_classes, size)
        logits = points @ weight.T + flat[num_classes * size :]
        losses = logsumexp(logits, axis=1) - logits[np.arange(len(points)), targets.astype(int)]
        return float((weight**2).sum() / 2 + c * losses.sum())

    found = minimize(objective, np.zeros(num_classes * (size + 1)), method="BFGS", options={"gtol": 1e-7})
    return found.x[: num_classes * size].reshape(num_classes, size), found.x[num_classes * size :]


@pytest.mark.parametrize("c", [0.3, 30.0])
def test_the_classifier_is_the_minimum(c: float) -> None:
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(3), [4, 9, 6]).astype(float)
    points = rng.normal(size=(19, 2)) + targets[:, None]
    weight, bias = fitted_classifier(torch.tensor(points), torch.tensor(targets).long(), 3, c)
    expected_weight, expected_bias = by_scipy(points, targets, 3, c)
    np.testing.assert_allclose(weight, expected_weight, atol=2e-4)
    # the softmax does not tell apart biases that differ by one number
    np.testing.assert_allclose(bias - bias.mean(), expected_bias - expected_bias.mean(), atol=2e-3)


def test_a_class_that_was_not_seen_never_wins() -> None:
    fetril = Fetril(FetrilSettings(), Context(0))
    assert fetril.class_scores(torch.ones(3, 2)).shape == (3, 0)
    fetril.load_state_dict(
        {
            "sums": torch.ones(3, 2).double(),
            "counts": torch.tensor([2.0, 0.0, 1.0]).double(),
            "weight": torch.tensor([[1.0, -1.0], [0.0, 0.0], [-1.0, 1.0]]).double(),
            "bias": torch.tensor([-5.0, 0.0, -4.0]).double(),
        }
    )
    scores = fetril.class_scores(torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
    assert scores.tolist() == [[-3.0, -torch.inf, -6.0], [-7.0, -torch.inf, -2.0]]


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-llama"])
def test_a_run_of_three_tasks(
    model: str, sequence_of: Callable[..., SequencePlan], learner_of: Callable[..., Learner]
) -> None:
    """The state after each task: sums over real texts, and the classifier that scipy's points would give."""
    settings = {"model": model, "methods": ["fetril"], "stream": {"first": 3}, "training": {"micro_batch": 4}}
    sequence = sequence_of(**settings)
    view = run_sequence(sequence)
    assert view.status == "finished"
    learner = learner_of(**settings)
    # whatever was learnt is still known: the classes of the first task win on its own features
    seen: list[int] = []
    sums: dict[int, Array] = {}
    counts: dict[int, int] = {}
    for task in range(3):
        features, classes = embedded(learner, task)
        for k in np.unique(classes):
            sums[k] = sums.get(k, 0) + features[classes == k].sum(0)
            counts[k] = counts.get(k, 0) + int((classes == k).sum())
        seen = sorted({*seen, *classes.tolist()})
        state = Store(Path(sequence.out)).load(sequence.keys[task + 1]).method["0:fetril"]
        means = np.zeros((max(seen) + 1, features.shape[1]))
        for k in seen:
            np.testing.assert_allclose(state["sums"][k], sums[k], atol=1e-4)
            assert state["counts"][k] == counts[k]
            means[k] = sums[k] / counts[k]
        old = [k for k in seen if k not in classes]
        assert bool(old) == (task > 0), "else nothing stands in for anything"
        points, targets = list(features), list(classes)
        for k in old:
            new = np.unique(classes)
            cosines = means[new] @ means[k] / np.linalg.norm(means[new], axis=1) / np.linalg.norm(means[k])
            nearest = new[cosines.argmax()]
            points += list(features[classes == nearest] - means[nearest] + means[k])
            targets += [k] * int((classes == nearest).sum())
        logits = np.array(points) @ state["weight"].numpy().T + state["bias"].numpy()
        check_minimum(np.array(points), np.searchsorted(seen, targets), logits[:, seen], state["weight"][seen].numpy())


def check_minimum(points: Array, targets: Array, logits: Array, weight: Array, c: float = 100.0) -> None:
    """At the minimum the gradient W + c sum_i (p_i - e_i) x_i^T is zero, beside its two parts."""
    p = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    p[np.arange(len(points)), targets] -= 1
    np.testing.assert_allclose(c * p.T @ points, -weight, atol=0.02 * np.abs(weight).max())
    assert np.abs(weight).max() > 0.1


def embedded(learner: Learner, task: int) -> tuple[Array, Array]:
    """The features and classes of a task's train split, each text read alone."""
    learner.family.module.eval()
    features, classes = [], []
    with torch.no_grad():
        for feature in learner.features(task):
            features.append(learner.embed(learner.family.collate([feature]))[0].double().numpy())
            classes.append(feature["class_index"])
    return np.array(features), np.array(classes)
