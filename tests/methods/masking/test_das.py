"""DAS: importance against a factor that is put on each output, its bounds and maximum by hand, and what it damps."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from methods import Context
from methods.masking.das import Das, DasSettings, bounded, unit_importance
from methods.masking.output_units import maskable_weights
from orchestrator.training.learner import Learner
from orchestrator.training.task import TaskBatches
from tests.conftest import FAMILIES
from tests.methods import toy


def test_the_bounds_by_hand() -> None:
    # mean 2, variance 2/3: z = -1.2247, 0, 1.2247
    expected = math.tanh(math.sqrt(1.5))
    torch.testing.assert_close(bounded(torch.tensor([1.0, 2.0, 3.0])), torch.tensor([expected, 0.0, expected]))
    assert bounded(torch.full((3,), 5.0)).tolist() == [0, 0, 0]


def by_factors(learner: Learner, task: int) -> dict[str, Tensor]:
    """The mean over examples of |dL/dg| with a real factor g = 1 on each layer's output, one example at a time."""
    module = learner.family.module.eval()
    factors = {}
    handles = []
    for maskable in maskable_weights(module):
        factor = nn.Parameter(torch.ones(maskable.num_units))
        factors[maskable.name] = factor
        handles.append(maskable.measured.register_forward_hook(lambda m, i, output, f=factor: output * f))
    features = learner.features(task)
    sums = {name: torch.zeros(len(factor)) for name, factor in factors.items()}
    for feature in features:
        loss, _ = learner.forward(module, learner.family.collate([feature]))
        for (name, _), gradient in zip(factors.items(), torch.autograd.grad(loss, list(factors.values())), strict=True):
            sums[name] += gradient.abs()
    for handle in handles:
        handle.remove()
    return {name: total / len(features) for name, total in sums.items()}


@pytest.mark.parametrize("model", FAMILIES)
def test_importance_is_the_derivative_by_a_factor_on_the_output(model: str, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model=model, methods=[{"tuning": "full", "plugins": ["das"]}], stream={"max_train": 6})
    module = learner.family.module
    context = learner.stack.parts[1][1].context
    batches = TaskBatches(learner, learner.features(0), 0)
    weights = maskable_weights(module)
    found = unit_importance(context, module, weights, batches, None, lambda b: learner.forward(module, b)[0])
    expected = by_factors(learner, 0)
    assert found.keys() == expected.keys()
    for name, importance in expected.items():
        assert importance.max() > 0
        # but for the number of examples, which the normalisation takes away
        torch.testing.assert_close(found[name] / 6, importance, rtol=1e-3, atol=1e-6, msg=name)


def test_the_largest_of_all_tasks_is_kept(learner_of: Callable[..., Learner]) -> None:
    part = {"name": "das", "general": False, "samples": None}
    learner = learner_of(model="tiny-bert", methods=[{"tuning": "full", "plugins": [part]}], stream={"max_train": 6})
    das = learner.stack.parts[1][1]
    assert isinstance(das, Das)
    module = learner.family.module
    tasks = []
    for task in range(3):
        das.before_task(module, task, ())
        das.after_task(module, task, TaskBatches(learner, learner.features(task), task))
        tasks.append({name: bounded(i) for name, i in by_factors(learner, task).items()})
    num_largest = [0, 0, 0]
    for name, found in das.importance.items():
        each = torch.stack([importance[name] for importance in tasks])
        torch.testing.assert_close(found, each.max(0).values, rtol=1e-3, atol=1e-4)
        for task in range(3):
            num_largest[task] += int((each.argmax(0) == task).sum())
    assert min(num_largest) > 10, "else the maximum could be any one task's"


class OneLayer(nn.Module):
    """A linear layer inside a numbered block, for gradients that are set by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleList([nn.Linear(2, 3, bias=False)])


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_gradients_are_damped_by_importance(strength: float) -> None:
    das = Das(DasSettings(strength=strength), Context(0))
    model = OneLayer()
    weight = model.block[0].weight
    gradient = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    weight.grad = gradient.clone()
    das.before_optimizer_step(model)
    assert torch.equal(weight.grad, gradient), "nothing was learnt yet"
    das.load_state_dict({"importance": {"block.0": torch.tensor([0.0, 0.25, 1.0])}})
    das.before_optimizer_step(model)
    factors = {0.0: [1, 1, 1], 0.5: [1, 0.875, 0.5], 1.0: [1, 0.75, 0]}[strength]
    assert torch.equal(weight.grad, gradient * torch.tensor(factors)[:, None])


def test_the_divergence_of_two_draws_by_hand() -> None:
    """p = softmax([0, ln 3]) = [1/4, 3/4] and q = [1/2, 1/2]: KL(p || q) = 1/4 ln 1/2 + 3/4 ln 3/2, for each example."""
    answers = iter([torch.tensor([[0.0, math.log(3)]] * 4), torch.zeros(4, 2)])
    das = Das(DasSettings(), toy.context(forward=lambda model, batch: (torch.zeros(()), next(answers))))
    divergence = das._divergence(nn.Sequential())(toy.batch(example_indices=[0, 1, 2, 3]))
    expected = 4 * (0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert float(divergence) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_first_task_is_damped_where_dropout_tells_units_apart(
    dropout: float, learner_of: Callable[..., Learner]
) -> None:
    learner = learner_of(
        model="tiny-bert", overrides={"hidden_dropout_prob": dropout}, stream={"max_train": 6},
        methods=[{"tuning": "full", "plugins": ["das"]}],
    )  # fmt: skip
    das = learner.stack.parts[1][1]
    assert isinstance(das, Das)
    module = learner.family.module.train()
    found = []
    for _ in range(2):
        das.importance = {}
        das.before_task(module, 0, TaskBatches(learner, learner.features(0), 0))
        found.append(torch.cat(list(das.importance.values())))
    assert torch.equal(found[0], found[1]), "the same draws whenever it is measured"
    assert module.training and bool(found[0].any()) == (dropout > 0)
