"""TODO orchestrator.training.optimizer"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn

from methods import trainable
from methods.shared.snapshots import fitted
from orchestrator.config.training import TrainingConfig


def make_optimizer(module: nn.Module, head: Sequence[nn.Parameter], training: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW. No weight decay on biases, norms and the task head (whose untrained rows must stay as they are).

    A parameter takes the first rate of `training.lrs` whose pattern it matches, else `training.lr`. Raises ValueError for a
    pattern that matches nothing.
    """
    heads = {id(p) for p in head}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = defaultdict(list)
    unused = set(training.lrs)
    for name, parameter in trainable(module).items():
        is_head = id(parameter) in heads
        found = next((p for p in training.lrs if (is_head and p == "head") or fnmatch(name, p)), None)
        unused.discard(str(found))
        groups[training.lrs[found] if found else training.lr, parameter.ndim > 1 and not is_head].append(parameter)
    if unused:
        raise ValueError(f"training.lrs: {sorted(unused)[0]!r} matches no parameter that trains")
    decayed_first = sorted(groups.items(), key=lambda group: not group[0][1])
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": lr, **({} if decays else {"weight_decay": 0.0})}
            for (lr, decays), parameters in decayed_first
        ],
        lr=training.lr,
        betas=training.betas,
        weight_decay=training.weight_decay,
        fused=True,
    )


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, module: nn.Module, optimizer_state: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Have the optimizer go on where another stopped, for the parameters that both have in one shape.

    A task head may have other rows than in the stream that the state comes from: those that only one of them has belong to
    labels that no task so far has trained, whose moments are zero.
    """
    for name, parameter in trainable(module).items():
        state = optimizer_state.get(name, {})
        shaped = {key: value for key, value in state.items() if value.ndim}
        if state and all(value.shape[1:] == parameter.shape[1:] for value in shaped.values()):
            fitting: Mapping[str, Any] = fitted(shaped, dict.fromkeys(shaped, parameter))
            optimizer.state[parameter] = {
                key: fitting[key].clone() if key in fitting else value.to(parameter.device, copy=True)
                for key, value in state.items()
            }
