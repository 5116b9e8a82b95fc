"""MAS: the outputs' sensitivity by hand, its sum over tasks, and the penalty."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.regularisation.mas import Mas, MasSettings, sensitivity
from tests.methods import toy


def by_hand(weight: Tensor) -> Tensor:
    """f = W x, so d ||f||^2 / dW = 2 f x^T."""
    weight = weight.double()
    return torch.stack([(2 * torch.outer(weight @ x, x)).abs() for x in toy.INPUTS]).mean(0)


def test_the_importance_is_the_mean_absolute_gradient_of_the_squared_norm() -> None:
    found = sensitivity(toy.context(), toy.Toy(toy.WEIGHT), toy.batches(2), None)["weight"]
    toy.assert_close(found, by_hand(toy.WEIGHT))
    first = (2 * torch.outer(toy.WEIGHT.double() @ toy.INPUTS[0], toy.INPUTS[0])).abs()
    toy.assert_close(sensitivity(toy.context(), toy.Toy(toy.WEIGHT), toy.batches(2), 1)["weight"], first)


def test_labels_do_not_matter() -> None:
    relabelled = [b.replace(labels=2 - b.labels) for b in toy.batches(2)]
    found = sensitivity(toy.context(), toy.Toy(toy.WEIGHT), relabelled, None)["weight"]
    assert torch.equal(found, sensitivity(toy.context(), toy.Toy(toy.WEIGHT), toy.batches(2), None)["weight"])


def test_the_penalty_sums_importances_and_holds_the_newest_weights() -> None:
    mas = Mas(MasSettings(strength=0.5, samples=None), toy.context())
    model, omegas = toy.Toy(toy.WEIGHT), []
    for task in range(3):
        mas.before_task(model, task, toy.batches())
        with torch.no_grad():
            model.weight += 0.3 * (task + 1)
        mas.after_task(model, task, toy.batches())
        omegas.append(by_hand(model.weight.detach()))
    anchor = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.0, -3.0]])
    mas.before_step(model, [])
    loss = mas.after_forward(model, toy.batch(loss_weight=0.5), torch.zeros(1), torch.zeros((), dtype=torch.float64))
    expected = 0.5 * 0.5 * (sum(omegas) * (model.weight - anchor) ** 2).sum()
    toy.assert_close(loss, expected)
    gradient = toy.gradient_of_the_penalty(mas, model, [0.5, 0.5])
    toy.assert_close(gradient, 2 * 0.5 * sum(omegas) * (model.weight - anchor))


def test_nothing_is_added_in_the_first_task() -> None:
    mas = Mas(MasSettings(strength=9.0), toy.context())
    model, loss = toy.Toy(toy.WEIGHT), torch.ones(())
    mas.before_task(model, 0, toy.batches())
    mas.before_step(model, [])
    assert mas.after_forward(model, toy.batch(), torch.zeros(1), loss) == loss
    mas.add_gradients(model)
    assert model.weight.grad is None
