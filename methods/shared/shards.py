"""Parameters of which each worker holds some rows alone, and what depends on more than those.

Where a model is sharded its parameters are `DTensor`s: each worker holds a block of rows (of the first axis) of each. What is
elementwise, or a worker does to each row by itself, works on them as on any tensor. What does not, goes through these
functions, which for a tensor that is whole on each worker change nothing. Of a sharded tensor every worker must call them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether each worker holds a part of it alone."""
    # not by its class, whose import takes as long as the rest of torch: where nothing is sharded, nobody waits for it
    return hasattr(tensor, "placements")


def local(tensor: Tensor) -> Tensor:
    """What this worker holds of a tensor, without its gradient: a view, so that writing into it writes into the tensor."""
    if is_sharded(tensor):
        return tensor.to_local().detach()
    return tensor.detach()


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor without its gradient, on every worker."""
    if is_sharded(tensor):
        return tensor.full_tensor().detach()
    return tensor.detach()


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor that is whole on each worker, on the device of another one and sharded as that one is."""
    if is_sharded(tensor):
        return tensor
    tensor = tensor.to(like.device)
    if not is_sharded(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    # every worker has the values already, so none is sent
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def rows_held(tensor: Tensor) -> slice:
    """Which rows of the whole tensor this worker holds."""
    first = 0
    if is_sharded(tensor):
        for axis, placement in enumerate(tensor.placements):
            if placement.is_shard():
                # all workers have as many, but for the last ones, which have what is left
                rows_each = -(-len(tensor) // tensor.device_mesh.size(axis))
                first = min(rows_each * tensor.device_mesh.get_local_rank(axis), len(tensor))
    return slice(first, first + len(local(tensor)))


def total(tensors: Iterable[Tensor]) -> Tensor:
    """The sum of all entries of all tensors, a scalar: their parts are summed over workers in one exchange."""
    whole_sums = []
    part_sums = []
    like = None
    for tensor in tensors:
        if is_sharded(tensor):
            like = tensor
            part_sums.append(tensor.to_local().sum())
        else:
            whole_sums.append(tensor.sum())
    if like is not None:
        whole_sums.append(sum_of_parts(torch.stack(part_sums).sum(), like))
    return torch.stack(whole_sums).sum()


def sum_of_parts(found: Tensor, like: Tensor) -> Tensor:
    """The sum of what each worker found in its part of a tensor; what was found, of one that is whole on each worker."""
    if not is_sharded(like):
        return found
    from torch.distributed.tensor import DTensor, Partial, Replicate

    # a replica of a part must not count twice
    placements = [Partial() if placement.is_shard() else Replicate() for placement in like.placements]
    return DTensor.from_local(found, like.device_mesh, placements).full_tensor()
