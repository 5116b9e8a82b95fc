"""What a learner holds, and the state from which the next task goes on where that is not the one that is scored."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from methods import trainable
from methods.shared.shards import is_sharded
from orchestrator.store.checkpoints import ResumeState

Purpose = Literal["score", "train"]
BOTH: frozenset[Purpose] = frozenset({"score", "train"})


@dataclass(frozen=True)
class LearnerState:
    """What a learner's model and method hold.

    `tasks_seen` counts the tasks behind the state (0: the initial model); None says that it holds nothing whole. After a
    task there is one state, or, where each task is annealed, there are two: the decayed checkpoint, which is scored, and
    the resume state, from which the next task trains. `serves` says which of them it is: a single state serves both.
    `optimizer_state` is what the next task's optimizer goes on with, by parameter.
    """

    tasks_seen: int | None = None
    serves: frozenset[Purpose] = frozenset()
    optimizer_state: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)

    def is_after(self, tasks_seen: int, purpose: Purpose) -> bool:
        """Whether it is the whole state after so many tasks, and the one for that purpose."""
        return self.tasks_seen == tasks_seen and purpose in self.serves


NOTHING_WHOLE = LearnerState()
INITIAL = LearnerState(tasks_seen=0, serves=BOTH)


def snapshot(module: nn.Module, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> ResumeState:
    """The present state as a copy on the CPU, in which later steps change nothing. `weights` are those of a checkpoint."""
    parameters = trainable(module)
    optimizer_state = {}
    for name, parameter in parameters.items():
        state = optimizer.state.get(parameter)
        if state:
            optimizer_state[name] = copy_to_cpu(state)
    # All that trains and not the checkpoint's weights alone: a method may train more for the time of a task
    return ResumeState(copy_to_cpu({**parameters, **weights}), optimizer_state)


@torch.no_grad()
def restore(module: nn.Module, resume_state: ResumeState) -> None:
    """Put the weights of an earlier state back into the model."""
    parameters = dict(module.named_parameters())
    for name, weight in resume_state.weights.items():
        parameters[name].copy_(weight)


def copy_to_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that share nothing with the tensors; of sharded ones where they are, as they are small there."""
    copies = {}
    for name, tensor in tensors.items():
        if is_sharded(tensor):
            copies[name] = tensor.detach().clone()
        else:
            copies[name] = tensor.detach().to("cpu", copy=True)
    return copies


def free_memory() -> None:
    """Give back what nothing refers to any more."""
    # a model and its method refer to each other, so that neither goes by itself
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
