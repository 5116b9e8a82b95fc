"""Many tensors exchanged with the other workers as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from methods.shared.shards import is_sharded


def as_one(tensors: Sequence[Tensor], exchange: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """What `exchange` makes of tensors that travel as one vector; sharded ones are every worker's already, and stay.

    One exchange costs about as long as the slowest message, however many tensors there are.
    """
    apart = [tensor for tensor in tensors if not is_sharded(tensor)]
    if not apart:
        return list(tensors)
    fused = exchange(torch.cat([tensor.flatten() for tensor in apart]))
    exchanged = iter(fused.split([tensor.numel() for tensor in apart]))
    found = []
    for tensor in tensors:
        found.append(tensor if is_sharded(tensor) else next(exchanged).view_as(tensor))
    return found
