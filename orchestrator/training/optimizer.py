"""AdamW over the parameters that train, and its state from task to task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn

from methods import trainable
from methods.shared.shards import is_sharded
from methods.shared.snapshots import fitted
from orchestrator.config.training import TrainingConfig

# What AdamW remembers of each parameter, by the parameter's name: "step", "exp_avg", "exp_avg_sq"
OptimizerState = Mapping[str, Mapping[str, Tensor]]


def make_optimizer(
    module: nn.Module,
    head: Sequence[nn.Parameter],
    training: TrainingConfig,
    without_decay: Sequence[nn.Parameter] = (),
    rate_factors: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """AdamW. No weight decay on biases, norms, the task head (whose untrained output units must stay as they are) and what
    the tuning method names.

    A parameter takes the first rate of `training.lrs` whose pattern it matches, else `training.lr` times the factor that the
    tuning method gives it by its name. Raises ValueError for a pattern that matches nothing.
    """
    head_ids = set(map(id, head))
    undecayed_ids = head_ids | set(map(id, without_decay))
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = defaultdict(list)
    unused = set(training.lrs)
    for name, parameter in trainable(module).items():
        is_head = id(parameter) in head_ids
        lr = training.resolved_lr * (rate_factors or {}).get(name, 1.0)
        pattern = _first_match(name, is_head, training.lrs)
        if pattern is not None:
            lr = training.lrs[pattern]
            unused.discard(pattern)
        has_decay = parameter.ndim > 1 and id(parameter) not in undecayed_ids
        # sharded ones apart: one fused update takes tensors of one kind
        groups[lr, has_decay, is_sharded(parameter)].append(parameter)
    if unused:
        raise ValueError(f"training.lrs: {sorted(unused)[0]!r} matches no parameter that trains")
    decayed_groups: list[dict[str, Any]] = []
    undecayed_groups: list[dict[str, Any]] = []
    for (lr, has_decay, _), parameters in groups.items():
        if has_decay:
            decayed_groups.append({"params": parameters, "lr": lr})
        else:
            undecayed_groups.append({"params": parameters, "lr": lr, "weight_decay": 0.0})
    return torch.optim.AdamW(
        [*decayed_groups, *undecayed_groups],
        lr=training.resolved_lr,
        betas=training.betas,
        weight_decay=training.weight_decay,
        fused=True,
    )


def _first_match(name: str, is_head: bool, patterns: Iterable[str]) -> str | None:
    for pattern in patterns:
        if fnmatch(name, pattern) or (is_head and pattern == "head"):
            return pattern
    return None


def load_optimizer_state(optimizer: torch.optim.Optimizer, module: nn.Module, optimizer_state: OptimizerState) -> None:
    """Have the optimizer go on where another stopped, for the parameters that both have in one shape.

    A task head may have other output units than in the stream that the state comes from: those that only one of them has
    belong to labels that no task so far has trained, whose moments are zero.
    """
    for name, parameter in trainable(module).items():
        state = optimizer_state.get(name)
        if state and _fits(state, parameter):
            optimizer.state[parameter] = _fitted_copy(state, parameter)


def _fits(state: Mapping[str, Tensor], parameter: Tensor) -> bool:
    """Whether a parameter's state is of its shape, but for the number of output units."""
    for tensor in state.values():
        # The step count is a scalar
        if tensor.ndim > 0 and tensor.shape[1:] != parameter.shape[1:]:
            return False
    return True


def _fitted_copy(state: Mapping[str, Tensor], parameter: Tensor) -> dict[str, Tensor]:
    copies = {}
    for key, tensor in state.items():
        if tensor.ndim > 0:
            copies[key] = fitted({key: tensor}, {key: parameter})[key].clone()
        else:
            copies[key] = tensor.to(parameter.device, copy=True)
    return copies
