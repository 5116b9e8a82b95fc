"""FW-Merging against a second implementation in numpy, on a toy and on each family, for any number of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from methods import Batch, Context, trainable
from methods.base import Example
from methods.merging.fw_merging import FwMerging, FwMergingSettings, choices, inner_products
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES
from tests.methods import toy, workers
from tests.methods.reference import GlobalBatch, mean_loss

Arrays = dict[str, np.ndarray]
INPUTS, LABELS = toy.INPUTS.numpy(), toy.LABELS.numpy()
rng = np.random.default_rng(3)
# what training does to the weights in each of three tasks
MOVES = [{"weight": rng.normal(size=(3, 2)), "bias": rng.normal(size=3)} for _ in range(3)]
START = {"weight": np.array([[0.3, -0.2], [0.1, 0.4], [-0.5, 0.2]]), "bias": np.array([0.1, -0.3, 0.2])}


class WithBias(nn.Module):
    """A softmax regression of two tensors in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(START["weight"]))
        self.bias = nn.Parameter(torch.tensor(START["bias"]))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weight.T + self.bias


def arrays(model: nn.Module) -> Arrays:
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def gradient(theta: Arrays, tasks: int) -> Arrays:
    """Of the mean cross-entropy over all examples of the first tasks: the mean of (p - e_y) x^T, and of p - e_y."""
    rows = [row for task in range(tasks) for row in range(workers.SIZES[task])]
    x, y = INPUTS[rows], LABELS[rows]
    scores = x @ theta["weight"].T + theta["bias"]
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    p[np.arange(len(rows)), y] -= 1
    return {"weight": p.T @ x / len(rows), "bias": p.mean(0)}


def frank_wolfe(
    theta: Arrays, candidates: list[Arrays], granularity: str, steps: int, step_size: float
) -> tuple[Arrays, list[Any], list[float]]:
    """The formula: where it ends, what was chosen in each step, and each step's gap."""
    chosen: list[Any] = []
    gaps = []
    for k in range(steps):
        g = gradient(theta, len(candidates))
        layers = {name: [float((g[name] * c[name]).sum()) for c in candidates] for name in theta}
        if granularity == "model":
            whole = [sum(products) for products in zip(*layers.values(), strict=True)]
            best = {name: int(np.argmin(whole)) for name in theta}
        else:
            best = {name: int(np.argmin(products)) for name, products in layers.items()}
        gaps.append(sum(float((g[n] * (theta[n] - candidates[best[n]][n])).sum()) for n in theta))
        gamma = step_size * 2 / (k + 2)
        theta = {n: theta[n] + gamma * (candidates[best[n]][n] - theta[n]) for n in theta}
        chosen.append(tuple(best.values()))
    return theta, chosen, gaps


def run(context: Context, **settings: Any) -> list[tuple[Arrays, Arrays, dict[str, Any]]]:
    """Where each of three tasks begins, what is merged after it, and its diagnostics; resumed after each."""
    chosen = FwMergingSettings(**{"fraction": 1.0, **settings})
    model = WithBias()
    merging = FwMerging(chosen, context)
    found = []
    for task, moves in enumerate(MOVES):
        merging.before_task(model, task, [])
        start = arrays(model)
        with torch.no_grad():
            for name, p in model.named_parameters():
                p += torch.tensor(moves[name])
        merging.after_task(model, task, [])
        assert all(p.grad is None for p in model.parameters()) and model.training
        found.append((start, arrays(model), dict(merging.diagnostics())))
        again = FwMerging(chosen, context)
        again.load_state_dict(merging.state_dict())
        merging = again  # as after a stop
    return found


def expected(begin: str, granularity: str, steps: int, step_size: float) -> list[tuple[Arrays, Arrays, Any, Any]]:
    candidates: list[Arrays] = []
    merged = START
    found = []
    for moves in MOVES:
        start = merged if begin == "merged" else START
        candidates.append({name: start[name] + moves[name] for name in start})
        merged = candidates[-1]
        if begin == "base":
            merged = {n: sum(c[n] for c in candidates) / len(candidates) for n in START}  # type: ignore[misc]
        chosen: Any = []
        gaps: Any = []
        if len(candidates) > 1:
            merged, chosen, gaps = frank_wolfe(merged, candidates, granularity, steps, step_size)
        found.append((start, merged, chosen, gaps))
    return found


@pytest.mark.parametrize("begin", ["base", "merged"])
@pytest.mark.parametrize("granularity", ["layer", "model"])
@pytest.mark.parametrize(("steps", "step_size"), [(1, 0.5), (4, 1.0), (7, 0.3)])
def test_three_tasks_by_another_hand(begin: str, granularity: str, steps: int, step_size: float) -> None:
    settings = {"begin": begin, "granularity": granularity, "steps": steps, "step_size": step_size}
    found = run(workers.context(), **settings)
    for (start, merged, notes), (start_, merged_, _, gaps_) in zip(
        found, expected(begin, granularity, steps, step_size), strict=True
    ):
        for name in START:
            np.testing.assert_allclose(start[name], start_[name], atol=1e-12)
            np.testing.assert_allclose(merged[name], merged_[name], atol=1e-12)
        np.testing.assert_allclose(notes["gaps"], gaps_, atol=1e-12)


def test_the_other_settings_would_be_seen() -> None:
    """What is compared above differs by each setting, and steps choose now one model and now another."""
    layer = expected("base", "layer", 4, 1.0)[-1]
    assert len(set(layer[2])) > 1 and any(of_weight != of_bias for of_weight, of_bias in layer[2])
    for other in (expected("base", "model", 4, 1.0)[-1], expected("merged", "layer", 4, 1.0)[-1]):
        assert abs(layer[1]["weight"] - other[1]["weight"]).max() > 0.1


def test_shares_say_what_the_weights_are_made_of() -> None:
    """The weights are a mean of the candidates by these shares, if one choice is made for all tensors."""
    found = run(workers.context(), granularity="model", steps=3, step_size=0.7)
    candidates = [START["weight"] + moves["weight"] for moves in MOVES]
    for tasks in (1, 2, 3):
        _, merged, notes = found[tasks - 1]
        assert sum(notes["shares"]) == pytest.approx(1.0)
        mean = sum(share * candidate for share, candidate in zip(notes["shares"], candidates[:tasks], strict=True))
        np.testing.assert_allclose(merged["weight"], mean, atol=1e-12)
    by_layer = run(workers.context(), granularity="layer", steps=1, step_size=1.0)[-1][2]
    # one step to the end: 6 of 9 parameters are the weight's
    of_weight, of_bias = expected("base", "layer", 1, 1.0)[-1][2][0]
    shares = [0.0, 0.0, 0.0]
    shares[of_weight] += 6 / 9
    shares[of_bias] += 3 / 9
    assert by_layer["shares"] == pytest.approx(shares)


def test_choices_by_hand() -> None:
    products = torch.tensor([[3.0, 1.0, 2.0], [-4.0, 0.0, -1.0], [5.0, 5.0, 5.0]])
    assert choices(products, "layer") == [1, 0, None], "where no candidate leads downhill, none is chosen"
    # sums 4, 6, 6
    assert choices(products, "model") == [0, 0, 0]
    assert choices(torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "model") == [None, None]


def test_products_are_wider_than_the_weights() -> None:
    """1e8 + 1 is 1e8 in float32: of two candidates that differ by little, the better one is found all the same."""
    candidates = [{"a": torch.tensor([1e8, x])} for x in (1.0, 0.0)]
    found = inner_products({"a": torch.ones(2)}, candidates)
    assert found.tolist() == [[1e8 + 1, 1e8]]


def drawn(task_id: int, **settings: Any) -> list[list[tuple[int, int]]]:
    """The (task, row) of what each step looks at."""
    seen: list[list[tuple[int, int]]] = []

    def note(examples: Sequence[Example]) -> Iterator[Batch]:
        seen.append([(e["task"], e["row"]) for e in examples])
        return workers.batches()(examples)

    merging = FwMerging(FwMergingSettings(**settings), workers.context(batches=note))
    model = WithBias()
    for task in range(task_id + 1):
        seen.clear()
        merging.before_task(model, task, [])
        merging.after_task(model, task, [])
    return seen


def test_each_step_draws_anew_from_all_tasks_so_far() -> None:
    memory = {(task, row) for task in range(3) for row in range(workers.SIZES[task])}
    seen = drawn(2, fraction=1.0, examples=4, steps=40)
    assert len(seen) == 40 and all(len(set(step)) == 4 for step in seen), "none twice"
    assert {example for step in seen for example in step} == memory, "the newest task's too"
    assert len({tuple(step) for step in seen}) > 20
    assert seen == drawn(2, fraction=1.0, examples=4, steps=40)
    assert all(set(step) == memory for step in drawn(2, fraction=1.0, steps=3)), "all where fewer are kept"
    # of 4, 3 and 2 examples 2, 1 and 1 are kept, the same ones in every step
    few = drawn(2, fraction=0.3, steps=5)
    assert len({frozenset(step) for step in few}) == 1 and sorted(task for task, _ in few[0]) == [0, 0, 1, 2]
    assert drawn(0, fraction=1.0) == [], "of one model nothing is chosen"


@pytest.mark.parametrize(("count", "size"), [(2, 1), (2, 4), (3, 2)])
def test_any_number_of_workers(count: int, size: int) -> None:
    """For micro-batches that leave workers without any, too."""
    (alone,) = workers.together(1, lambda context: run(context, examples=5), size)
    for found in workers.together(count, lambda context: run(context, examples=5), size):
        for (_, merged, _), (_, merged_alone, _) in zip(found, alone, strict=True):
            for name in START:
                np.testing.assert_allclose(merged[name], merged_alone[name], atol=1e-12)


def test_a_head_that_grew_keeps_its_new_units() -> None:
    small, large = nn.Linear(1, 2, bias=False), nn.Linear(1, 3, bias=False)
    merging = FwMerging(FwMergingSettings(), Context(0))
    with torch.no_grad():
        small.weight.copy_(torch.tensor([[1.0], [2.0]]))
        merging.before_task(small, 0, [])
        small.weight += 10.0
        merging.after_task(small, 0, [])
        large.weight.copy_(torch.tensor([[11.0], [12.0], [7.0]]))
        merging.before_task(large, 1, [])
    assert large.weight.tolist() == [[1.0], [2.0], [7.0]]
    assert merging.candidates[0]["weight"].tolist() == [[11.0], [12.0], [7.0]]


@pytest.mark.parametrize("model", FAMILIES)
def test_on_each_family(model: str, learner_of: Callable[..., Learner]) -> None:
    """A step from the mean of two models, against the model's own loss on both tasks' examples as one batch."""
    plugin = {"name": "fw_merging", "fraction": 1.0, "steps": 1, "step_size": 0.5}
    learner = learner_of(
        model=model,
        methods=[{"tuning": "full", "plugins": [plugin]}],
        stream={"max_train": 13},
        training={"micro_batch": 2},
    )
    for task in range(2):
        train_task(learner, task, lambda event: None)
    module, merging = learner.family.module, learner.stack.parts[1][1]
    assert isinstance(merging, FwMerging)
    parameters = trainable(module)
    merged = {name: p.detach().clone() for name, p in parameters.items()}
    first, second = merging.candidates
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_((first[name] + second[name]) / 2)
    module.eval()
    features = learner.features(0) + learner.features(1)
    batch = GlobalBatch(learner.family.collate(features), len(learner.stream.labels_until(2)))
    gradients = torch.autograd.grad(mean_loss(module, batch), list(parameters.values()), allow_unused=True)
    chosen = [0, 0]
    for (name, p), g in zip(parameters.items(), gradients, strict=True):
        mean = p.detach()
        if g is None or not (first[name] != second[name]).any():
            assert torch.equal(merged[name], mean), name
            continue
        slope = float((g.double() * (first[name].double() - second[name].double())).sum())
        if abs(slope) < 1e-7:
            continue  # too near to equal for float32
        # the smaller product is the first's where the slope is negative
        best = first[name] if slope < 0 else second[name]
        chosen[0 if slope < 0 else 1] += 1
        torch.testing.assert_close(merged[name], mean + 0.5 * (best - mean), msg=name)
    assert min(chosen) > 2, "else one model would do for all"
