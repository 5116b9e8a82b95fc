"""Weight gradients of some output units alone, against the layer's own and against the form that masks afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from methods import Method, method_spec
from methods.masking.output_units import MaskableWeight, maskable_weights
from methods.masking.row_sparse import RowSparseLayer, row_sparse_layers
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES


class Bystander(Method):
    """A plug-in that looks at the loss and leaves it as it is: beside it nothing may be left out of the gradients."""

    def after_forward(self, model: nn.Module, batch: Any, logits: Tensor, loss: Tensor) -> Tensor:
        return loss


BYSTANDER = "tests.methods.masking.test_row_sparse.Bystander"


def backward(layer: nn.Linear, x: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    """Gradients of sum(dy * y) by the input, the weight and the bias."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    (layer(x) * dy).sum().backward()
    assert x.grad is not None and layer.weight.grad is not None and layer.bias.grad is not None
    return x.grad, layer.weight.grad, layer.bias.grad


def test_the_gradients_by_the_formula() -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 5, 4))
    layer = nn.Linear(3, 4).double()
    sparse = RowSparseLayer(layer)
    sparse.active = True
    sparse.kept = torch.tensor([1, 3])
    dx, d_weight, d_bias = backward(layer, torch.tensor(x), torch.tensor(dy))
    expected = np.einsum("bso,bsi->oi", dy, x)
    expected[[0, 2]] = 0
    np.testing.assert_allclose(d_weight.numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(dx.numpy(), dy @ layer.weight.detach().numpy(), atol=1e-12)
    # a bias is no unit's weight: it trains in full
    np.testing.assert_allclose(d_bias.numpy(), dy.sum((0, 1)), atol=1e-12)


@pytest.mark.parametrize("state", ["inactive", "evaluating", "all kept", "closed"])
def test_the_layer_itself_where_nothing_is_to_be_left_out(state: str) -> None:
    x, dy = torch.randn(2, 5, 3), torch.randn(2, 5, 4)
    layer = nn.Linear(3, 4)
    expected = backward(layer, x, dy)
    sparse = RowSparseLayer(layer)
    sparse.active = state != "inactive"
    sparse.kept = None if state == "all kept" else torch.tensor([1])
    layer.train(state != "evaluating")
    if state == "closed":
        sparse.close()
        assert "forward" not in vars(layer)
    for found, own in zip(backward(layer, x, dy), expected, strict=True):
        torch.testing.assert_close(found, own, rtol=1e-6, atol=1e-6)


def test_under_autocast_kept_rows_are_those_of_the_layer_itself() -> None:
    x, dy = torch.randn(2, 50, 16), torch.randn(2, 50, 8)
    layer = nn.Linear(16, 8)
    kept = torch.tensor([0, 2, 7])

    def gradients() -> tuple[Tensor, ...]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return backward(layer, x, dy)

    dx, d_weight, d_bias = gradients()
    sparse = RowSparseLayer(layer)
    sparse.active = True
    sparse.kept = kept
    found_dx, found_weight, found_bias = gradients()
    assert found_weight.dtype == torch.float32 and found_dx.dtype == torch.float32
    torch.testing.assert_close(found_dx, dx)
    torch.testing.assert_close(found_weight[kept], d_weight[kept])
    torch.testing.assert_close(found_bias, d_bias, rtol=1e-2, atol=1e-2)
    assert not found_weight[[1, 3, 4, 5, 6]].any()


class OwnLinear(nn.Linear):
    """A linear layer with a forward pass of its own."""


def test_a_layer_of_another_class_is_left_alone() -> None:
    plain, own = nn.Linear(2, 2), OwnLinear(2, 2)
    weights = [MaskableWeight(str(i), layer.weight, layer, layer) for i, layer in enumerate((plain, own))]
    assert row_sparse_layers(weights) == []
    assert "forward" not in vars(plain), "all of a model or nothing"
    assert len(row_sparse_layers(weights[:1])) == 1


@pytest.mark.parametrize(
    ("method", "alone"),
    [
        ({"plugins": ["migu"]}, True),
        ({"tuning": "lora", "plugins": ["migu"]}, True),
        ({"plugins": ["replay", "migu"]}, True),
        ({"plugins": ["migu", "l2"]}, False),
        ({"plugins": ["projection", "migu"]}, False),
        ({"tuning": "olora", "plugins": ["migu"]}, False),
    ],
)
def test_who_looks_at_gradients_beside_it(
    method: dict[str, Any], alone: bool, learner_of: Callable[..., Learner]
) -> None:
    stack = learner_of(methods=[method]).stack
    (migu,) = [part for name, part in stack.parts if name == "migu"]
    assert migu.context.alone_with_gradients is alone
    assert method_spec(method).plugins[-1].name == method["plugins"][-1]


def learners(learner_of: Callable[..., Learner], **changes: Any) -> tuple[Learner, Learner]:
    """MIGU from the first task on; and again beside a bystander, for which gradients are made in full and masked then."""
    migu = {"name": "migu", "ratio": 0.3, "mask_first_task": True}
    tuning = changes.pop("tuning", "full")
    found = []
    for plugins in ([migu], [migu, BYSTANDER]):
        learner = learner_of(
            methods=[{"tuning": tuning, "plugins": plugins}],
            stream={"max_train": 40},
            training={"lr": 1e-3, "global_batch": 8, "epochs": 4, **changes.get("training", {})},
            **{key: value for key, value in changes.items() if key != "training"},
        )
        found.append(learner)
    return found[0], found[1]


@pytest.mark.parametrize("changes", [{}, {"tuning": "lora"}, {"training": {"micro_batch": 4}}])
@pytest.mark.parametrize("model", FAMILIES)
def test_twenty_steps_equal_the_form_that_masks_afterwards(
    model: str, changes: dict[str, Any], learner_of: Callable[..., Learner]
) -> None:
    """In float64; with accumulation both forms mask at the end of the step."""
    sparse, masked = learners(learner_of, model=model, **changes)
    steps: list[Any] = []
    for learner in (sparse, masked):
        learner.family.module.double()
    before = {name: p.detach().clone() for name, p in sparse.family.module.named_parameters()}
    train_task(sparse, 0, steps.append)
    train_task(masked, 0, lambda event: None)
    assert len(steps) == 20
    expected = dict(masked.family.module.named_parameters())
    moved = 0.0
    for name, p in sparse.family.module.named_parameters():
        torch.testing.assert_close(p, expected[name], rtol=0, atol=1e-6)
        moved += float((p - before[name]).detach().abs().sum())
    assert moved > 1
    assert (
        sparse.stack.collect_diagnostics(0)["migu/kept_share"] == masked.stack.collect_diagnostics(0)["migu/kept_share"]
    )


@pytest.mark.parametrize("model", FAMILIES)
def test_what_is_masked_is_never_computed(model: str, learner_of: Callable[..., Learner]) -> None:
    """Of a masked row's gradient 2 x tokens x d_in operations are saved, counted by torch itself."""
    flops = []
    for learner in learners(learner_of, model=model, training={"epochs": 1}):
        with FlopCounterMode(display=False) as counter:
            train_task(learner, 0, lambda event: None)
        flops.append(counter.get_total_flops())
    sparse, masked = flops
    inputs: list[int] = []
    weights = maskable_weights(learner.family.module)
    handles = []
    for maskable in weights:
        saved = maskable.num_units - -(-3 * maskable.num_units // 10)

        def note(module: nn.Module, x: tuple[Tensor, ...], y: object, saved: int = saved) -> None:
            inputs.append(2 * x[0].numel() * saved)

        handles.append(maskable.owner.register_forward_hook(note))
    for batch in learner.batches(learner.features(0)):
        learner.forward(learner.family.module, batch)
    # the pass above reads each example once, as the epoch did, with other neighbours and so other padding
    assert masked - sparse == pytest.approx(sum(inputs), rel=0.1)
