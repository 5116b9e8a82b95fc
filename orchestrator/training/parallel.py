"""All that the workers of one sequence do together, behind one object.

Nothing outside this file wraps a model, and nothing assumes that a parameter is whole on each worker: who wants whole tensors
asks for `full_state`, on every worker. So a model that is sharded over the workers can come without a change elsewhere.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from methods import gradients_alone

T = TypeVar("T")


@dataclass(frozen=True)
class Parallel:
    """The workers of one sequence, seen from the one of that `rank`; plain torch.distributed, and nothing where there is one.

    Every worker must make the same calls in the same order.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @staticmethod
    def current(device: torch.device | None = None) -> Parallel:
        """The process group that this process belongs to (one worker if none); by default on its GPU where it has one."""
        if device is None:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if not (dist.is_available() and dist.is_initialized()):
            return Parallel(device=device)
        return Parallel(dist.get_rank(), dist.get_world_size(), device)

    # Training

    def place(self, model: nn.Module, head: Sequence[nn.Parameter], precision: torch.dtype | None) -> nn.Module:
        """The model on this worker's device, or the part of it that this worker holds.

        `precision` is the type that a model in parts is computed in; None: its own. `head` is the task head's parameters.
        """
        return model.to(self.device)

    def prepare(self, model: nn.Module, exchanged: Sequence[nn.Parameter] = (), task_position: int = 0) -> nn.Module:
        """The model as it is called while a task is trained; what it wraps stays the model that methods see.

        The gradients of `exchanged` stay each worker's own: a method averages them over workers (`Method.exchanges`).
        """
        if self.count == 1:
            return model
        exchanged_ids = set(map(id, exchanged))
        names = [name for name, parameter in model.named_parameters() if id(parameter) in exchanged_ids]
        if all(not p.requires_grad or id(p) in exchanged_ids for p in model.parameters()):
            return model
        wrapper: Any = nn.parallel.DistributedDataParallel
        # torch has no other way to say so; an empty list takes back what an earlier task said
        wrapper._set_params_and_buffers_to_ignore_for_model(model, names)
        # Buffers are the same everywhere by construction: broadcasting them would only cost time
        return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)

    def accumulate(self, module: nn.Module, is_last: bool) -> AbstractContextManager[None]:
        """The context of a micro-batch's forward and backward pass: gradients are exchanged in a step's last one alone."""
        if is_last or not isinstance(module, nn.parallel.DistributedDataParallel):
            return contextlib.nullcontext()
        return module.no_sync()

    def backward(self, loss: Tensor) -> None:
        """Differentiate this worker's part of a loss that is a sum over all workers."""
        # DistributedDataParallel averages gradients, but the parts are shares of one mean already
        (loss * self.count).backward()

    def exchange_gradients(self, model: nn.Module) -> None:
        """Average over workers, after a step's last backward pass, those gradients that the passes left this worker's own."""
        # DistributedDataParallel has exchanged all of them

    def gradients(self, model: nn.Module, value: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """The gradients of a scalar by some of the model's parameters, None where it does not depend on one.

        They are this worker's own; of a model in parts, they are averaged over workers.
        """
        return gradients_alone(value, parameters)

    def clip_gradients(self, parameters: Iterable[nn.Parameter], max_norm: float | None) -> Tensor:
        """Scale the gradients down to a norm over all of them (None: leave them). Returns the norm before that, a scalar."""
        limit = math.inf if max_norm is None else max_norm
        return nn.utils.clip_grad_norm_(list(parameters), limit)

    def all_finite(self, tensors: Iterable[Tensor]) -> bool:
        """Whether no worker has a value that is infinite or not a number."""
        finite = 1.0
        for tensor in tensors:
            if not bool(torch.isfinite(tensor).all()):
                finite = 0.0
        # Every worker learns it, so that all of them stop at the same point
        return self.sum(torch.tensor(finite, device=self.device)).item() == self.count

    # Values

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

    def agree(self, value: T) -> T:
        """The first worker's value, on every worker."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def all_say(self, value: str) -> bool:
        """Whether all workers have one value, told to each of them."""
        is_same = float(self.agree(value) == value)
        return self.sum(torch.tensor(is_same, device=self.device)).item() == self.count

    def barrier(self) -> None:
        """Wait until every worker is here."""
        if self.count > 1:
            dist.barrier()

    def full_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Tensors by name, each whole, on the worker that writes at least. To be called on every worker."""
        # A copy of the model is whole on each worker today, so there is nothing to gather
        return dict(state)

    @torch.no_grad()
    def write_rows(self, parameter: nn.Parameter, rows: Tensor) -> None:
        """Put rows, whole on every worker, into the first ones of a parameter, whatever part of it this worker holds."""
        parameter[: len(rows)] = rows.to(parameter.device)

    # Who does what

    @property
    def goes_on_inside(self) -> bool:
        """Whether a task may be gone on with in its midst; not where its steps are made together with other sequences'."""
        return True

    @property
    def writes(self) -> bool:
        """Whether this worker writes files and journals for all."""
        return self.rank == 0

    @property
    def own_exchange(self) -> bool:
        """Whether a method may average gradients over workers by itself: several have the whole model."""
        return self.count > 1

    @property
    def holds_parts(self) -> bool:
        """Whether this worker holds a part of the model alone."""
        return False

    @property
    def dealt_among(self) -> tuple[int, int]:
        """(which, of how many) this worker is where examples are dealt out for passes that are no training."""
        return self.rank, self.count

    @property
    def keeps_scores(self) -> bool:
        """Whether this worker keeps the scores that it takes part in computing."""
        return True

    def share_of(self, items: Sequence[T]) -> Sequence[T]:
        """The part of a list of things, such as scores to compute, that this worker does."""
        return items[self.rank :: self.count]
