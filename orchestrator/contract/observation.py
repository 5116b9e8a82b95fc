"""What a part does while a run trains, noted from outside: its class's own methods are wrapped for the time of the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from methods import Method, TuningMethod, trainable

Weights = dict[str, Tensor]


@dataclass
class Observation:
    """For each task: the trained weights before it, before the part's `after_task` and at the end; and all states given."""

    before_task: list[Weights] = field(default_factory=list)
    after_steps: list[Weights] = field(default_factory=list)
    after_task: list[Weights] = field(default_factory=list)
    states: list[Mapping[str, Any]] = field(default_factory=list)

    def moved(self, task_id: int) -> list[str]:
        """The names of the weights that training a task changed."""
        return differing(self.before_task[task_id], self.after_task[task_id])

    def modified_afterwards(self, task_id: int) -> list[str]:
        """The names of the weights that `after_task` changed."""
        return differing(self.after_steps[task_id], self.after_task[task_id])


def differing(one: Weights, other: Weights) -> list[str]:
    """The names under which both hold a tensor, and not the same one."""
    return [name for name in other if name in one and not torch.equal(one[name], other[name])]


@contextmanager
def observed(part: type[Method]) -> Iterator[Observation]:
    """Note what instances of a class do inside the block."""
    notes = Observation()
    original = {name: getattr(part, name) for name in ("before_task", "after_task", "state_dict")}
    # what the class itself defines; the others it inherits, and must go on inheriting
    own = {name: vars(part)[name] for name in original if name in vars(part)}

    def before_task(self: Method, model: nn.Module, task_id: int, batches: Any) -> None:
        notes.before_task.append(_trained_weights(self, model))
        original["before_task"](self, model, task_id, batches)

    def after_task(self: Method, model: nn.Module, task_id: int, batches: Any) -> None:
        # where each task has weights of its own, they may have another form while it is trained, and no name between tasks
        notes.after_steps.append({} if self.card.per_task_weights else _trained_weights(self, model))
        original["after_task"](self, model, task_id, batches)
        notes.after_task.append(_trained_weights(self, model))

    def state_dict(self: Method) -> Mapping[str, Any]:
        state: Mapping[str, Any] = original["state_dict"](self)
        notes.states.append(state)
        return state

    # on the class: the run makes its own instances, which nobody outside gets hold of
    for name, wrapper in (("before_task", before_task), ("after_task", after_task), ("state_dict", state_dict)):
        setattr(part, name, wrapper)
    try:
        yield notes
    finally:
        # also after an error of the part: the next check uses the same class
        for name in original:
            delattr(part, name)
            if name in own:
                setattr(part, name, own[name])


def _trained_weights(part: Method, model: nn.Module) -> Weights:
    """Copies of what a checkpoint would hold now: a tuning method says what that is."""
    found: Mapping[str, Tensor]
    if isinstance(part, TuningMethod):
        found = part.weights(model)
    else:
        found = trainable(model)
    copies = {}
    for name, weight in found.items():
        copies[name] = weight.detach().clone()
    return copies
