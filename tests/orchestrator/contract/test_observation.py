"""What is noted of a part while it runs, and that its class is afterwards what it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods import Batch, Card, Context, Method, Settings, TuningMethod
from orchestrator.contract.observation import Observation, differing, observed


class Halves(Method):
    """Halves the bias after each task; inherits `before_task`."""

    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        with torch.no_grad():
            model.bias.mul_(0.5)  # type: ignore[union-attr, operator]

    def state_dict(self) -> dict[str, Any]:
        return {"halved": 1}


class Prompts(TuningMethod):
    """Keeps the weight alone, though the bias trains too; each task has weights of its own."""

    card = Card(per_task_weights="each task has its own")

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        return model

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        return {"weight": model.get_parameter("weight")}


# before any test has observed them
UNOBSERVED = {part: dict(vars(part)) for part in (Halves, Prompts)}


def model_of(weight: float, bias: float) -> nn.Linear:
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(weight)
        model.bias.fill_(bias)
    return model


def train(part: Method, model: nn.Linear, task_id: int) -> None:
    """A task in which one step adds 1 to the weight."""
    part.before_task(model, task_id, [])
    with torch.no_grad():
        model.weight.add_(1)
    part.after_task(model, task_id, [])
    part.state_dict()


def test_steps_and_what_comes_after_them_are_told_apart() -> None:
    model = model_of(3, 8)
    with observed(Halves) as notes:
        part = Halves(Settings(), Context(0))
        train(part, model, 0)
        train(part, model, 1)
    assert [weights["weight"].item() for weights in notes.before_task] == [3, 4]
    assert [weights["bias"].item() for weights in notes.after_steps] == [8, 4]
    assert [weights["bias"].item() for weights in notes.after_task] == [4, 2]
    assert notes.moved(0) == notes.moved(1) == ["weight", "bias"]
    assert notes.modified_afterwards(1) == ["bias"]
    assert notes.states == [{"halved": 1}] * 2


def test_of_a_tuning_method_what_a_checkpoint_would_hold_is_noted() -> None:
    """Amid a task its weights may have another form and no name, so they are not asked for."""
    with observed(Prompts) as notes:
        train(Prompts(Settings(), Context(0)), model_of(3, 8), 0)
    assert [list(weights) for weights in notes.before_task] == [["weight"]]
    assert notes.after_steps == [{}]
    assert notes.moved(0) == ["weight"]
    assert notes.modified_afterwards(0) == []


@pytest.mark.parametrize("part", UNOBSERVED)
def test_the_class_is_what_it_was_also_after_an_error(part: type[Method]) -> None:
    """What it inherited, it inherits still: a copy of it would hide a later change of its parent."""
    with pytest.raises(KeyError):
        with observed(part):
            assert dict(vars(part)) != UNOBSERVED[part]
            raise KeyError("x")
    assert dict(vars(part)) == UNOBSERVED[part]


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        ({"a": [1.0], "b": [2.0]}, {"a": [1.0], "b": [2.5]}, ["b"]),
        # what came or went is no difference: a new adapter has not moved
        ({"a": [1.0]}, {"b": [1.0], "a": [1.0]}, []),
        ({"a": [1.0, 2.0]}, {"a": [1.0]}, ["a"]),
        ({}, {}, []),
    ],
)
def test_weights_that_differ(one: Mapping[str, Any], other: Mapping[str, Any], names: list[str]) -> None:
    def tensors(values: Mapping[str, Any]) -> dict[str, Tensor]:
        return {name: torch.tensor(value) for name, value in values.items()}

    assert differing(tensors(one), tensors(other)) == names


def test_two_observations_have_notes_of_their_own() -> None:
    first = Observation()
    first.states.append({})
    assert Observation().states == []
