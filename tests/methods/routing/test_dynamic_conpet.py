"""Dynamic ConPET: the selector at its optimum, each task's equal weight, and which adapters act."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from methods import Context
from methods.routing.dynamic_conpet import DynamicConpet, DynamicConpetSettings, fit_selector
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task


def test_the_selector_against_scipy() -> None:
    rng = np.random.default_rng(0)
    counts = (9, 3, 5)
    features = [rng.normal(size=(n, 4)) + center for n, center in zip(counts, rng.normal(size=(3, 4)), strict=True)]

    def objective(flat: np.ndarray) -> float:
        weight, bias = flat[:12].reshape(3, 4), flat[12:]
        total = 0.0
        for task, of_task in enumerate(features):
            scores = of_task @ weight.T + bias
            logs = np.log(np.exp(scores).sum(1)) - scores[:, task]
            total += logs.mean() / 3
        return total + 0.05 / 2 * float((weight**2).sum())

    best = minimize(objective, np.zeros(15), method="BFGS", options={"gtol": 1e-8})
    weight, bias = fit_selector([torch.tensor(f) for f in features], 0.05, Context(0))
    np.testing.assert_allclose(weight, best.x[:12].reshape(3, 4), atol=1e-4)
    # biases are determined up to a common number
    np.testing.assert_allclose(bias - bias.mean(), best.x[12:] - best.x[12:].mean(), atol=1e-4)


def test_a_task_of_which_more_is_kept_weighs_no_more() -> None:
    few = torch.tensor([[1.0]]).double()
    other = torch.tensor([[-1.0], [0.5]]).double()
    once = fit_selector([few, other], 0.1, Context(0))
    often = fit_selector([few.repeat(7, 1), other], 0.1, Context(0))
    for a, b in zip(once, often, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_the_best_adapters_act_by_the_softmax_of_their_scores(learner_of: Callable[..., Learner]) -> None:
    method = {"tuning": {"name": "dynamic_conpet", "top_k": 2, "r": 2}}
    learner = learner_of(methods=[method], stream={"max_train": 8})
    tuning = learner.stack.tuning
    assert isinstance(tuning, DynamicConpet)
    learner.stack.grow(learner.family.module, 3)
    embeds = torch.randn(2, 3, 32)
    mask = torch.ones(2, 3, dtype=torch.long)
    assert tuning.gates(embeds, mask, training=False).tolist() == [[0.0, 0.0, 1.0]] * 2
    tuning.weight_Td = torch.zeros(3, 32, dtype=torch.float64)
    tuning.bias_T = torch.tensor([math.log(3.0), 0.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(tuning.gates(embeds, mask, training=False), torch.tensor([[0.75, 0.25, 0.0]] * 2))
    assert tuning.gates(embeds, mask, training=True).tolist() == [[0.0, 0.0, 1.0]] * 2
    assert DynamicConpetSettings().top_k == 1


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-bert"])
def test_the_selector_of_a_run_tells_what_it_was_trained_on(model: str, learner_of: Callable[..., Learner]) -> None:
    method = {"tuning": {"name": "dynamic_conpet", "r": 2, "fraction": 1.0, "ridge": 1e-4}}
    learner = learner_of(model=model, methods=[method], stream={"max_train": 12})
    for task in range(3):
        train_task(learner, task, lambda event: None)
    tuning = learner.stack.tuning
    assert isinstance(tuning, DynamicConpet)
    learner.family.module.eval()
    for task in range(3):
        query = tuning.embed(learner.family.collate(learner.features(task)))
        assert (tuning.scores(query).argmax(1) == task).float().mean() > 0.8
