"""Two states a task: the one before annealing, from which the next task goes on, and the annealed one, which is scored."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from methods import trainable
from orchestrator.store.checkpoints import ResumeState
from orchestrator.training.learner import Learner


def snapshot(learner: Learner, optimizer: torch.optim.Optimizer) -> ResumeState:
    """The present state, on the CPU: a step more changes nothing in it."""
    module = learner.family.module
    states = {name: optimizer.state.get(p, {}) for name, p in trainable(module).items()}
    optimizer_state = {name: _copies(state) for name, state in states.items() if state}
    return ResumeState(_copies({**trainable(module), **learner.weights()}), optimizer_state)


@torch.no_grad()
def restore(learner: Learner, resume_state: ResumeState) -> None:
    """Set the present weights aside as the annealed ones, and put those of the trunk in their place."""
    decayed = _copies(learner.weights())
    parameters = dict(learner.family.module.named_parameters())
    for name, weight in resume_state.weights.items():
        parameters[name].copy_(weight)
    learner.decayed, learner.optimizer_state = decayed, resume_state.optimizer_state


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
