"""Each check finds the fault that it is there for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from methods import Card, Method, Settings, trainable
from orchestrator.contract import checks
from orchestrator.contract.subject import Subject
from orchestrator.errors import SequenceFailed


class PullSettings(Settings):
    strength: float = Field(0.1, ge=0)


class Pull(Method):
    """Pulls weights to zero: what keeps the contract, and what the faulty ones below change."""

    Settings = PullSettings
    card = Card(summary="pulls", space={"strength": [0.1]}, strength_zero={"strength": 0.0}, strong={"strength": 0.5})

    @torch.no_grad()
    def after_optimizer_step(self, model: nn.Module) -> None:
        for p in trainable(model).values():
            p.sub_(self.settings.strength * p)


class Undescribed(Pull):
    card = Card()


class WrongSpace(Pull):
    """Tries what is refused."""

    card = Card(summary="pulls", space={"strength": [-1]})


class KindSpace(Pull):
    """Tries what is no amount."""

    card = Card(summary="pulls", space={"strength": [True, False]})


class MemorySpace(Pull):
    """Tries memories of different size."""

    card = Card(summary="pulls", space={"strength": [0.1]}, kept_share="strength")


class NoSpace(Pull):
    """Has a setting that no search tries."""

    card = Card(summary="pulls")


class Forgets(Pull):
    """Counts its steps, and forgets the count when it is stopped."""

    steps = 0

    def after_optimizer_step(self, model: nn.Module) -> None:
        self.steps += 1
        with torch.no_grad():
            for p in trainable(model).values():
                p.mul_(1 - 0.01 * self.steps)


class Opaque(Pull):
    """Has an object for a state."""

    def state_dict(self) -> dict[str, Any]:
        return {"what": {"inside": object()}}


class Freezes(Pull):
    """Nothing trains."""

    def before_optimizer_step(self, model: nn.Module) -> None:
        for p in trainable(model).values():
            p.grad = None

    def after_optimizer_step(self, model: nn.Module) -> None:
        pass


class Secret(Pull):
    """Changes weights after a task and does not say so."""

    @torch.no_grad()
    def after_task(self, model: nn.Module, task_id: int, batches: object) -> None:
        for p in trainable(model).values():
            p.mul_(0.9)


class Boasts(Pull):
    """Says that it changes weights after a task, and does not."""

    card = Card(summary="pulls", modifies_weights_after_task="it says so")


class AlwaysActs(Pull):
    """Acts at strength zero too."""

    @torch.no_grad()
    def after_optimizer_step(self, model: nn.Module) -> None:
        for p in trainable(model).values():
            p.mul_(0.9)


class NeverActs(Pull):
    """Does not act at full strength either."""

    def after_optimizer_step(self, model: nn.Module) -> None:
        pass


class Unweighted(Pull):
    """Adds its penalty to every micro-batch whole."""

    def after_forward(self, model: nn.Module, batch: object, logits: Tensor, loss: Tensor) -> Tensor:
        penalties = [p.square().sum() for p in trainable(model).values()]
        return loss + torch.stack(penalties).sum()


class Breaks(Pull):
    """Raises an error of its own."""

    def after_optimizer_step(self, model: nn.Module) -> None:
        raise KeyError("x")


@pytest.fixture
def subject(tmp_path: Path) -> Callable[[type[Method]], Subject]:
    """Makes the subject of a class of this module."""

    def make(part: type[Method]) -> Subject:
        return Subject(f"{__name__}.{part.__name__}", tmp_path)

    return make


FAULTS: list[tuple[type[Method], str, str]] = [
    (Undescribed, "described", "no summary"),
    (WrongSpace, "search space", "strength = -1, which is refused"),
    (KindSpace, "search space", "strength = True, which is no amount"),
    (MemorySpace, "search space", "'strength', the size of a memory"),
    (NoSpace, "search space", "a search would try none"),
    (Freezes, "trains", "training task 0 moved 0 weights"),
    (Forgets, "resumes", "differs when resumed after two"),
    (Opaque, "plain state", "what.*inside.* is a object"),
    (Secret, "says what it modifies", "`after_task` changes"),
    (Boasts, "says what it modifies", "left all trained weights alone"),
    (AlwaysActs, "strength zero", "differs from plain training"),
    (NeverActs, "strength zero", "changes nothing in two tasks"),
    (AlwaysActs, "strength zero on LoRA", "differs from plain training"),
    (Unweighted, "accumulation", "depends on the size of the micro-batches"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("part", "check", "message"), FAULTS)
def test_a_fault_is_found(
    part: type[Method], check: str, message: str, subject: Callable[[type[Method]], Subject]
) -> None:
    # a state that no checkpoint can hold already fails the run
    with pytest.raises((checks.ContractViolation, SequenceFailed), match=message):
        checks.CHECKS[check](subject(part))


@pytest.mark.slow
def test_what_is_right_passes(subject: Callable[[type[Method]], Subject]) -> None:
    right = subject(Pull)
    passed = []
    for name, check in checks.CHECKS.items():
        check(right)
        passed.append(name)
    # a check that had nothing to hold it to would have raised NotApplicable
    assert passed == list(checks.CHECKS) and "strength zero" in passed


def test_a_part_that_says_no_strength_is_not_held_to_it(subject: Callable[[type[Method]], Subject]) -> None:
    with pytest.raises(checks.NotApplicable, match="does not say where its strength is zero"):
        checks.check_strength_zero(subject(NoSpace))
