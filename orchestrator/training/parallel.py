"""The workers of one sequence, seen from one of them: plain torch.distributed, and nothing where there is one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Workers:
    """This worker's place, and what all of them do together. Every worker must make the same calls in the same order."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def here(cls, device: torch.device | None = None) -> Workers:
        """The process group that this process belongs to (one worker if none); by default on its GPU where it has one."""
        device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if not (dist.is_available() and dist.is_initialized()):
            return cls(device=device)
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @property
    def is_first(self) -> bool:
        """Whether this worker writes for all."""
        return self.rank == 0

    def mean(self, tensor: Tensor) -> Tensor:
        """The average over workers, on every worker."""
        if self.count > 1:
            dist.all_reduce(tensor)
            tensor /= self.count
        return tensor

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over workers, on every worker."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def from_first(self, tensor: Tensor) -> Tensor:
        """The first worker's tensor, on every worker."""
        if self.count > 1:
            tensor = tensor.contiguous()
            dist.broadcast(tensor, src=0)
        return tensor

    def agree(self, value: Any) -> Any:
        """The first worker's value, on every worker."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def barrier(self) -> None:
        """Wait until every worker is here."""
        if self.count > 1:
            dist.barrier()

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model for training: in DistributedDataParallel where there are several workers."""
        if self.count == 1:
            return model
        return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
