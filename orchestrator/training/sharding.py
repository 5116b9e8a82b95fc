"""Workers that share one copy of a model: each holds a part of every weight (FSDP2, `scaling.strategy: fsdp` or `hsdp`).

Sharded is what the model has as a whole: all weights in full fine-tuning, the frozen base beside adapters. What trains beside a
frozen base, and a task head, is small: each worker keeps it whole, and its gradients are averaged once a step.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from methods import at_least_float32
from methods.shared.exchange import as_one
from methods.shared.shards import is_sharded, local, part_of, total, whole
from orchestrator.models.blocks import blocks_of
from orchestrator.training.parallel import Parallel

T = TypeVar("T")
Strategy = Literal["ddp", "fsdp", "hsdp"]


def current_workers(device: torch.device, strategy: Strategy) -> Parallel:
    """The process group that this process belongs to. A single worker holds the whole model under every strategy."""
    plain = Parallel.current(device)
    if strategy == "ddp" or plain.count == 1:
        return plain
    return ShardedParallel(plain.rank, plain.count, device, strategy)


@dataclass(frozen=True)
class ShardedParallel(Parallel):
    """Workers that share one copy of the model; with `hsdp`, those of one node share one, and nodes have copies.

    A pass through the model is made by all workers together. So in passes of a method's own, and in scoring, all of them see
    all examples (`dealt_among` is one), where in training each has its part of a global batch.
    """

    strategy: Literal["fsdp", "hsdp"] = "fsdp"

    # Training

    def place(self, model: nn.Module, head: Sequence[nn.Parameter], precision: torch.dtype | None) -> nn.Module:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

        kept_whole = _kept_whole(model, head)
        # float32 parts are the masters; blocks are gathered in the type that they compute in, and gradients summed in float32
        sums = None if precision is None else torch.float32
        policy = MixedPrecisionPolicy(precision, sums, cast_forward_inputs=False)
        options: dict[str, Any] = {"mesh": self._mesh(), "mp_policy": policy, "ignored_params": kept_whole}
        # the root too gives its weights back: between passes methods then see every parameter in parts
        for module in (*blocks_of(model), model):
            fully_shard(module, reshard_after_forward=True, **options)
        for parameter in kept_whole:
            parameter.data = parameter.data.to(self.device)
        # like `forward`, these gather the root's weights before they run
        model.run_part = _run_part  # type: ignore[assignment]
        for method in ("generate", "run_part"):
            if hasattr(model, method):
                register_fsdp_forward_method(model, method)
        return model

    def _mesh(self) -> Any:
        from torch.distributed.device_mesh import init_device_mesh

        if self.strategy == "fsdp":
            return init_device_mesh(self.device.type, (self.count,))
        workers_of_a_node = int(os.environ.get("LOCAL_WORLD_SIZE", self.count))
        if self.count % workers_of_a_node:
            raise ValueError(
                f"scaling.strategy: hsdp needs as many workers on each node; {self.count} do not divide by the "
                f"{workers_of_a_node} of this one"
            )
        shape = (self.count // workers_of_a_node, workers_of_a_node)
        return init_device_mesh(self.device.type, shape, mesh_dim_names=("nodes", "workers of a node"))

    def prepare(self, model: nn.Module, exchanged: Sequence[nn.Parameter] = (), task_position: int = 0) -> nn.Module:
        return model

    def accumulate(self, module: nn.Module, is_last: bool) -> AbstractContextManager[None]:
        module.set_requires_gradient_sync(is_last)  # type: ignore[operator]  # what `fully_shard` gives a module
        return contextlib.nullcontext()

    def exchange_gradients(self, model: nn.Module) -> None:
        own = []
        for parameter in model.parameters():
            if parameter.requires_grad and not is_sharded(parameter):
                own.append(parameter)
        if not own:
            return
        # a parameter that only another worker's examples used has a gradient all the same
        used = torch.tensor([parameter.grad is not None for parameter in own], dtype=own[0].dtype, device=self.device)
        gradients = []
        for parameter in own:
            gradients.append(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
        *averages, used = as_one([*gradients, used], self.mean)
        for parameter, average, is_used in zip(own, averages, used.tolist(), strict=True):
            if is_used:
                parameter.grad = average

    def gradients(self, model: nn.Module, value: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor | None]:
        # autograd.grad says of a sharded parameter that nothing depends on it; a backward pass has its gradient in the end
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        aside = [parameter.grad for parameter in trained]
        for parameter in trained:
            parameter.grad = None
        value.backward()
        found = [parameter.grad for parameter in parameters]
        for parameter, gradient in zip(trained, aside, strict=True):
            parameter.grad = gradient
        return found

    def clip_gradients(self, parameters: Iterable[nn.Parameter], max_norm: float | None) -> Tensor:
        # torch's own functions take tensors of one kind at a time
        kinds: dict[bool, list[nn.Parameter]] = {False: [], True: []}
        squares = []
        for parameter in parameters:
            if parameter.grad is not None:
                kinds[is_sharded(parameter)].append(parameter)
                squares.append(at_least_float32(parameter.grad).square())
        norm = total(squares).sqrt()
        limit = math.inf if max_norm is None else max_norm
        for alike in kinds.values():
            nn.utils.clip_grads_with_norm_(alike, limit, norm)
        return norm

    def all_finite(self, tensors: Iterable[Tensor]) -> bool:
        return super().all_finite(map(local, tensors))

    # Values

    def mean(self, tensor: Tensor) -> Tensor:
        return tensor if is_sharded(tensor) else super().mean(tensor)

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor if is_sharded(tensor) else super().sum(tensor)

    def from_first(self, tensor: Tensor) -> Tensor:
        return tensor if is_sharded(tensor) else super().from_first(tensor)

    def full_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        full: dict[str, Any] = {}
        for name, value in state.items():
            if isinstance(value, Mapping):
                full[name] = self.full_state(value)
            elif isinstance(value, Tensor) and is_sharded(value):
                # one tensor at a time, and off the device: all of them together fit on no worker
                gathered = whole(value)
                if self.writes:
                    full[name] = gathered.cpu()
            elif self.writes:
                full[name] = value
        return full

    @torch.no_grad()
    def write_rows(self, parameter: nn.Parameter, rows: Tensor) -> None:
        if not is_sharded(parameter):
            super().write_rows(parameter, rows)
            return
        # a head alone may have other rows than were saved, and is whole
        parameter.copy_(part_of(rows.to(parameter.dtype), parameter))

    # Who does what

    @property
    def own_exchange(self) -> bool:
        return False

    @property
    def holds_parts(self) -> bool:
        return True

    @property
    def dealt_among(self) -> tuple[int, int]:
        return 0, 1

    @property
    def keeps_scores(self) -> bool:
        return self.writes

    def share_of(self, items: Sequence[T]) -> Sequence[T]:
        return items


def _run_part(part: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    return part(**inputs)


def _kept_whole(model: nn.Module, head: Sequence[nn.Parameter]) -> set[nn.Parameter]:
    """The parameters that are not sharded: the head, and all that trains if something does not."""
    kept = set(head)
    if not all(parameter.requires_grad for parameter in model.parameters()):
        kept.update(parameter for parameter in model.parameters() if parameter.requires_grad)
    return kept
