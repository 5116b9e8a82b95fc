"""Two states a task: the one before annealing, from which the next task goes on, and the annealed one, which is scored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from methods import trainable
from methods.passes import fitted
from orchestrator.checkpoint import Trunk
from orchestrator.learner import Learner


def fork(learner: Learner, optimizer: torch.optim.Optimizer) -> Trunk:
    """The present state, on the CPU: a step more changes nothing in it."""
    module = learner.family.module
    states = {name: optimizer.state.get(p, {}) for name, p in trainable(module).items()}
    moments = {name: _copies(state) for name, state in states.items() if state}
    return Trunk(_copies({**trainable(module), **learner.weights()}), moments)


@torch.no_grad()
def return_to(learner: Learner, trunk: Trunk) -> None:
    """Set the present weights aside as the annealed ones, and put those of the trunk in their place."""
    annealed = _copies(learner.weights())
    parameters = dict(learner.family.module.named_parameters())
    for name, weight in trunk.weights.items():
        parameters[name].copy_(weight)
    learner.annealed, learner.moments = annealed, trunk.moments


def put_moments(
    optimizer: torch.optim.Optimizer, module: nn.Module, moments: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Have the optimizer go on where another stopped, for the parameters that both have in one shape.

    A task head may have other rows than in the stream that the state comes from: those that only one of them has belong to
    labels that no task so far has trained, whose moments are zero.
    """
    for name, parameter in trainable(module).items():
        state = moments.get(name, {})
        shaped = {key: value for key, value in state.items() if value.ndim}
        if state and all(value.shape[1:] == parameter.shape[1:] for value in shaped.values()):
            fitting: Mapping[str, Any] = fitted(shaped, dict.fromkeys(shaped, parameter))
            optimizer.state[parameter] = {
                key: fitting[key].clone() if key in fitting else value.to(parameter.device, copy=True)
                for key, value in state.items()
            }


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
