"""Small helpers on tensors and parameters that every kind of method uses."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

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


def generator(*parts: object) -> torch.Generator:
    """A CPU generator seeded by the given values and nothing else."""
    digest = sha256(repr(parts).encode()).digest()
    # seven bytes: manual_seed takes a signed 64-bit integer
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
