"""The seam: hooks that do nothing by themselves, settings that refuse what they do not know, and no hook that is never called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from pydantic import Field, ValidationError
from torch import nn

from methods import CacheFields, Context, Cost, DataPolicy, Method, Settings, TuningMethod
from tests.methods import toy


class StrengthSettings(Settings):
    strength: float = Field(0.1, ge=0)
    gated: bool = False


def test_a_method_that_defines_nothing_changes_nothing() -> None:
    model = toy.Toy(toy.WEIGHT)
    before = model.weight.detach().clone()
    method = Method(StrengthSettings(), Context(0))
    batch = toy.batch()
    loss = torch.tensor(2.0)
    method.check_model(model, batch)
    method.before_task(model, 0, [])
    method.before_step(model, [batch])
    assert method.on_batch(batch) is batch
    assert method.after_forward(model, batch, torch.zeros(4, 3), loss) is loss
    method.add_gradients(model)
    method.before_optimizer_step(model)
    method.after_optimizer_step(model)
    method.after_task(model, 0, [])
    method.load_state_dict({"a": 1})
    assert method.state_dict() == {}
    assert method.diagnostics() == {}
    assert torch.equal(model.weight, before)
    assert model.weight.grad is None


def test_a_tuning_method_says_what_trains() -> None:
    """A checkpoint holds what trains; what the model becomes, and a rule of its own, each must define itself."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    method = TuningMethod(StrengthSettings(), Context(0))
    assert list(method.weights(model)) == ["1.weight", "1.bias"]
    assert method.weights(model)["1.weight"] is model[1].weight
    assert list(method.without_decay()) == []
    with pytest.raises(NotImplementedError):
        method.prepare(model, [])
    with pytest.raises(NotImplementedError):
        method.class_scores(torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strenght": 1.0}, "Extra inputs are not permitted"),
        ({"strength": True}, "found True where a number or a text is expected"),
        ({"strength": -1}, "greater than or equal to 0"),
    ],
)
def test_settings_refuse_what_they_do_not_know(values: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        StrengthSettings.model_validate(values)


def test_settings_do_not_change_and_may_hold_a_boolean() -> None:
    """Cache keys are made of them, once."""
    settings = StrengthSettings.model_validate({"gated": True})
    assert (settings.strength, settings.gated) == (0.1, True)
    with pytest.raises(ValidationError, match="frozen"):
        settings.strength = 0.2


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"training_set": lambda self, *a: a[1]}, DataPolicy),
        ({"num_new_examples": lambda self, *a: 1}, DataPolicy),
        ({"extra_passes": lambda self, *a: None}, Cost),
        ({"cache_fields": lambda self, *a: None}, CacheFields),
    ],
)
def test_what_would_never_be_called_is_refused(body: Mapping[str, Any], part: type) -> None:
    name = next(iter(body))
    with pytest.raises(
        TypeError, match=f"Mistaken.{name} is never called unless the class derives from {part.__name__}"
    ):
        type("Mistaken", (Method,), dict(body))
    type("Right", (part, Method), dict(body))


def test_one_worker_is_its_own_mean_and_the_first() -> None:
    context = Context(3)
    tensor = torch.tensor([1.0, 2.0])
    assert context.mean_over_workers(tensor) is tensor
    assert context.from_first_worker(tensor) is tensor
    assert (context.seed, context.workers, context.shared_weights) == (3, 1, True)


def test_workers_are_summed_and_not_averaged() -> None:
    """Of three workers that found 1, 2 and 6, the mean is 3; one worker alone has what it found."""
    context = Context(0, workers=3, mean_over_workers=lambda tensor: torch.full_like(tensor, 3.0))
    assert context.sum_over_workers(torch.tensor([1.0])).tolist() == [9.0]
    assert Context(0).sum_over_workers(torch.tensor([1.0])).tolist() == [1.0]


@pytest.mark.parametrize("name", ["forward", "embed", "examples", "batches"])
def test_a_context_without_a_model_says_so(name: str) -> None:
    """Such a one serves to ask a method for its cache fields."""
    with pytest.raises(NotImplementedError, match="this context has no model and no data"):
        getattr(Context(0), name)(0)
