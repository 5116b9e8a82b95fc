"""Gradient projection: the basis by hand and by SVD, the projected step, and what leaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from methods import Context
from methods.masking.output_units import block_linears
from methods.subspaces.layer_inputs import Moments
from methods.subspaces.projection import Projection, ProjectionSettings, grown, project_out
from orchestrator.training.learner import Learner
from orchestrator.training.task import TaskBatches, train_task
from tests.conftest import FAMILIES
from tests.methods.toy import batch_with_mask


def test_projection_by_hand() -> None:
    basis = torch.tensor([[0.6], [0.8]])
    assert torch.allclose(project_out(torch.tensor([[1.0, 2.0]]), basis), torch.tensor([[1.0 - 1.32, 2.0 - 1.76]]))
    assert torch.allclose(project_out(torch.tensor([[-0.8, 0.6]]), basis), torch.tensor([[-0.8, 0.6]]))


def test_the_basis_takes_the_fewest_directions() -> None:
    """Energies 70, 20, 10 along the axes: 0.7 needs one, 0.75 two, 1.0 three; what is spanned already counts."""
    moment, none = torch.diag(torch.tensor([20.0, 70.0, 10.0])), torch.zeros(3, 0)
    assert [grown(none, moment, e).shape[1] for e in (0.0, 0.7, 0.75, 0.9, 0.91, 1.0)] == [0, 1, 2, 2, 3, 3]
    one = grown(none, moment, 0.7)
    assert one.abs().flatten().tolist() == pytest.approx([0, 1, 0])
    other = torch.diag(torch.tensor([0.0, 50.0, 50.0]))
    assert grown(one, other, 0.5).shape[1] == 1, "half of it is spanned"
    two = grown(one, other, 0.6)
    assert two.abs()[:, 1].tolist() == pytest.approx([0, 0, 1])
    assert torch.equal(two[:, :1], one)
    assert torch.equal(grown(one, torch.zeros(3, 3), 0.9), one)


def test_the_basis_is_the_papers_by_svd() -> None:
    """The published recipe on matrices of inputs [d, n], by singular values: two tasks in turn."""
    rng = torch.Generator().manual_seed(0)
    mix = torch.randn(12, 12, generator=rng).double() * 0.5 ** torch.arange(12).double()
    tasks = [m @ torch.randn(12, 200, generator=rng).double() for m in (mix, mix.flip(0))]
    basis, epsilon = torch.zeros(12, 0).double(), 0.95
    for inputs in tasks:
        old = basis
        residual = inputs - old @ (old.T @ inputs)
        u, s, _ = torch.linalg.svd(residual, full_matrices=False)
        whole = (inputs**2).sum()
        held, k = whole - (residual**2).sum(), 0
        while held < epsilon * whole:
            held, k = held + s[k] ** 2, k + 1
        expected = torch.cat([old, u[:, :k]], dim=1)
        basis = grown(old, inputs @ inputs.T, epsilon)
        assert basis.shape == expected.shape
        torch.testing.assert_close(basis @ basis.T, expected @ expected.T)
        torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1]).double())
    assert old.shape[1] < basis.shape[1] < 12


def moments(learner: Learner, sketch: int | None, micro: int, task: int = 0) -> dict[str, torch.Tensor]:
    training = learner.sequence.training.model_copy(update={"micro_batch": micro})
    learner.sequence = learner.sequence.model_copy(update={"training": training})
    learner.family.at_task(0, 3)
    module = learner.family.module
    inputs = Moments(module, block_linears(module), sketch, (0,))
    module.eval()
    with torch.no_grad():
        for batch in TaskBatches(learner, learner.features(task), task):
            inputs.see(batch)
            learner.forward(module, batch)
    inputs.close()
    return inputs.sums


@pytest.mark.parametrize("model", FAMILIES)
def test_inputs_are_those_of_real_tokens(model: str, learner_of: Callable[..., Learner]) -> None:
    """Against the examples one by one, where there is no padding to leave out; whatever the micro-batch."""
    learner = learner_of(model=model, stream={"max_train": 8})
    found = moments(learner, None, 4)
    module, expected = learner.family.module, {n: torch.zeros_like(c) for n, c in found.items()}

    def count(name: str) -> Callable[..., None]:
        def hook(layer: Any, x: tuple[torch.Tensor, ...]) -> None:
            flat = x[0][0][: None if x[0].shape[1] != width else length]
            expected[name] += flat.T @ flat

        return hook

    handles = [layer.register_forward_pre_hook(count(name)) for name, layer in block_linears(module).items()]
    with torch.no_grad():
        for feature in learner.features(0):
            batch = learner.family.collate([feature])
            width = batch.labels.shape[-1]  # T5 pads a target that is as long as its source
            length = len(feature["target"]) if model == "tiny-t5" else None
            learner.forward(module, batch)
    for handle in handles:
        handle.remove()
    for name, c in found.items():
        torch.testing.assert_close(c, expected[name], rtol=1e-4, atol=1e-4)


def test_autocast_does_not_round_the_moments() -> None:
    layer = torch.nn.Linear(16, 4, bias=False)
    x = torch.randn(4, 30, 16, generator=torch.Generator().manual_seed(0))
    inputs = Moments(torch.nn.ModuleDict({"0": layer}), {"0": layer}, None, (0,))
    inputs.see(batch_with_mask(torch.ones(4, 30)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x)
    inputs.close()
    exact = x.flatten(0, 1).double().T @ x.flatten(0, 1).double()
    torch.testing.assert_close(inputs.sums["0"].double(), exact, rtol=1e-5, atol=1e-5)


def test_a_sketch_is_the_same_in_any_micro_batch_and_spans_the_same(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(stream={"max_train": 16})
    four, two = moments(learner, 400, 4), moments(learner, 400, 2)
    exact = moments(learner, None, 4)
    for name, s in four.items():
        torch.testing.assert_close(two[name], s, rtol=1e-3, atol=1e-3)
        estimate = s @ s.T / 400
        assert (estimate - exact[name]).norm() < 0.25 * exact[name].norm(), name


def trained(learner: Learner, tasks: int = 2) -> Projection:
    for task in range(tasks):
        train_task(learner, task, lambda event: None)
    method = learner.stack.parts[1][1]
    assert isinstance(method, Projection)
    return method


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_adamw_leaks_and_projecting_the_update_stops_it(tuning: str, learner_of: Callable[..., Learner]) -> None:
    leakage = {}
    for project in (False, True):
        plugin = {"name": "projection", "epsilon": 0.9, "project_update": project}
        learner = learner_of(methods=[{"tuning": tuning, "plugins": [plugin]}])
        method = trained(learner, 1)
        bases = dict(method.bases)
        layers = block_linears(learner.family.module)
        assert set(bases) == set(layers)
        before = {n: layer.weight.detach().clone() for n, layer in layers.items()}
        train_task(learner, 1, lambda event: None)
        seen = sum(float(((layers[n].weight.detach() - before[n]) @ b).square().sum()) for n, b in bases.items())
        whole = sum(float((layers[n].weight.detach() - before[n]).square().sum()) for n in bases)
        assert whole > 0
        leakage[project] = method.diagnostics()["leakage"]
        assert leakage[project] == pytest.approx((seen / whole) ** 0.5, rel=1e-3)
    assert leakage[False] > 0.02
    assert leakage[True] < 1e-4


def test_bases_grow_and_are_the_state(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(methods=["gpm"])
    method = trained(learner, 1)
    first = {n: b.clone() for n, b in method.bases.items()}
    train_task(learner, 1, lambda event: None)
    assert all(torch.equal(b[:, : first[n].shape[1]], first[n]) for n, b in method.bases.items())
    assert sum(b.shape[1] for b in method.bases.values()) > sum(b.shape[1] for b in first.values())
    assert set(method.state_dict()) == set(block_linears(learner.family.module))
    assert "held_share" not in method.diagnostics(), "without a sketch nothing has to be measured"
    spanned = method.diagnostics()["spanned_share"]
    assert isinstance(spanned, list)
    assert spanned == [b.shape[1] / b.shape[0] for b in method.bases.values()]


@pytest.mark.parametrize(("sketch", "enough"), [(200, True), (6, False)])
def test_a_sketch_holds_the_energy_that_was_asked(
    sketch: int, enough: bool, learner_of: Callable[..., Learner]
) -> None:
    """The energy of the real inputs, summed here over two tasks; and no direction more than is needed."""
    epsilon = 0.9
    plugin = {"name": "projection", "epsilon": epsilon, "sketch": sketch}
    learner = learner_of(methods=[{"tuning": "full", "plugins": [plugin]}], stream={"max_train": 16})
    before: dict[str, int] = {}
    for task in range(2):
        train_task(learner, task, lambda event: None)
        method = learner.stack.parts[1][1]
        assert isinstance(method, Projection)
        found = method.diagnostics()["held_share"]
        assert isinstance(found, list)
        exact = moments(learner, None, 8, task)
        assert len(found) == len(method.bases) == len(exact)
        for share, (name, basis) in zip(found, method.bases.items(), strict=True):
            held = (basis.T @ exact[name] @ basis).diagonal().cumsum(0) / exact[name].diagonal().sum()
            assert float(held[-1]) == pytest.approx(share, abs=1e-3)
            new = basis.shape[1] - before.get(name, 0)
            before[name] = basis.shape[1]
            if not enough and held[-1] < epsilon:
                assert new == sketch, "all that the sketch has"
                continue
            assert held[-1] >= epsilon - 1e-4, name
            if new > 1:
                assert held[-2] < epsilon, f"{name}: fewer would do"
        assert (min(found) >= epsilon - 1e-4) == enough, "else the case is not what it is named"


def test_of_the_first_task_only_what_its_basis_depends_on_counts() -> None:
    """It is not projected, so its checkpoint serves both ways to project the next one."""
    for project_update in (False, True):
        method = Projection(ProjectionSettings(project_update=project_update), Context(0))
        first, second = method.cache_fields(0), method.cache_fields(1)
        assert first is not None and second is not None
        assert "project_update" not in first and first["epsilon"] == method.settings.epsilon
        assert second["project_update"] is project_update
