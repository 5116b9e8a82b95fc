"""Small helpers on tensors and parameters that every kind of method uses."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name."""
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found[name] = parameter
    return found


def freeze_all_but(model: nn.Module, head: Sequence[nn.Parameter]) -> None:
    """Freeze the model but for the parameters in `head`."""
    model.requires_grad_(False)
    for parameter in head:
        parameter.requires_grad_(True)


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32 or wider: sums of many terms are not taken in bfloat16."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def type_beside(weight: Tensor) -> torch.dtype:
    """The type of what trains beside a frozen weight: the weight's own, float32 at least; beside codes torch's default."""
    if weight.is_floating_point():
        return torch.promote_types(weight.dtype, torch.float32)
    return torch.get_default_dtype()


def outside_autocast(tensor: Tensor) -> AbstractContextManager[Any]:
    """A context in which matrix products of tensors on that tensor's device keep their operands' type."""
    # a forward hook runs inside the model's autocast, which rounds operands and result of `@` to bfloat16, 3 digits, whatever
    # their type: too few to rank sums or cosines that lie close together
    return torch.autocast(tensor.device.type, enabled=False)


def generator(*parts: object) -> torch.Generator:
    """A CPU generator seeded by the given values and nothing else."""
    digest = sha256(repr(parts).encode()).digest()
    # seven bytes: manual_seed takes a signed 64-bit integer
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
