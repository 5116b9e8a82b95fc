"""The rows that output-magnitude methods mask: which weights have them, and what their magnitude is.

Shapes: weight [d_out, d_in] (torch layout: row k makes output channel k), magnitude [d_out].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.base import Batch, at_least_float32


@dataclass(frozen=True)
class Rows:
    """A weight whose rows can be masked, and the module whose output gives their magnitude."""

    name: str
    weight: nn.Parameter
    source: nn.Module


def masked_count(keep_ratio: float, rows: int) -> int:
    """floor((1 - keep_ratio) * rows), as rows - ceil(keep_ratio * rows): exact for ratios such as 0.9 in binary."""
    return rows - math.ceil(keep_ratio * rows - 1e-9)


def block_rows(model: nn.Module) -> list[Rows]:
    """The maskable weights of a transformer: the trainable linear layers inside its numbered blocks.

    Those are query, key, value and output of every attention and the linear layers of the feed-forward blocks. Embeddings,
    norms, biases, the LM head, poolers and classifiers are outside (arXiv 2406.17245). A LoRA layer gives two for each
    adapter that trains: A by its own output |A x|, and B by the output of the whole layer, W x + (alpha / r) B A x.
    """
    found: list[Rows] = []
    adapters: list[str] = []
    for name, module in model.named_modules():
        if not any(part.isdigit() for part in name.split(".")):
            continue
        downs, ups = getattr(module, "lora_A", None), getattr(module, "lora_B", None)
        if isinstance(downs, nn.ModuleDict) and isinstance(ups, nn.ModuleDict):
            adapters.append(name + ".")
            for adapter, a in downs.items():
                found.append(Rows(f"{name}.lora_A.{adapter}", _weight(a), a))
                found.append(Rows(f"{name}.lora_B.{adapter}", _weight(ups[adapter]), module))
        elif isinstance(module, nn.Linear) and not name.startswith(tuple(adapters)):
            found.append(Rows(name, _weight(module), module))
    found = [rows for rows in found if rows.weight.requires_grad]
    if not found:
        raise ValueError("no trainable linear layer inside a numbered transformer block: nothing to mask")
    return found


def _weight(linear: nn.Module) -> nn.Parameter:
    weight = linear.weight
    assert isinstance(weight, nn.Parameter)
    return weight


class Magnitudes:
    """Collects n_k = sum over tokens of |y_k| for every `Rows`, over the micro-batches of a step.

    A sum orders the channels of a layer as the mean over tokens does. Padding does not count unless `count_padding`.
    """

    def __init__(self, rows: list[Rows], count_padding: bool = False) -> None:
        self.rows = rows
        self.count_padding = count_padding
        self.sums = [torch.zeros(r.weight.shape[0], device=r.weight.device) for r in rows]
        self.masks: dict[tuple[int, ...], Tensor] = {}
        self.handles = [r.source.register_forward_hook(self._hook(i)) for i, r in enumerate(rows)]

    def see(self, batch: Batch) -> None:
        """Note the padding masks of the micro-batch whose forward pass comes next."""
        masks = {key: value for key, value in batch.items() if key.endswith("mask")}
        if "option_mask" in masks:  # the same tokens in every micro-batch of a step: together they count once
            masks["option_mask"] = masks["option_mask"] * batch["share"]
        self.masks = {tuple(value.shape): value for value in masks.values()}

    def _hook(self, i: int) -> Callable[[nn.Module, object, Tensor], None]:
        @torch.no_grad()
        def add(module: nn.Module, inputs: object, output: Tensor) -> None:
            if not module.training:
                return
            size = at_least_float32(output.detach().abs())
            if self.count_padding:
                self.sums[i] += size.flatten(0, -2).sum(0)
                return
            mask = self.masks.get(tuple(output.shape[:-1]))
            if mask is None:
                raise ValueError(f"layer {self.rows[i].name!r}: output {tuple(output.shape)} fits no mask of the batch")
            self.sums[i] += mask.flatten().to(size.dtype) @ size.flatten(0, -2)

        return add

    def take(self, mean_over_workers: Callable[[Tensor], Tensor]) -> Iterator[tuple[Rows, Tensor]]:
        """Each weight with its magnitude [d_out], averaged over workers in one fused vector; then starts anew."""
        fused = mean_over_workers(torch.cat(self.sums))
        parts = fused.split([len(s) for s in self.sums])
        for s in self.sums:
            s.zero_()
        yield from zip(self.rows, parts, strict=True)

    def close(self) -> None:
        """Remove the forward hooks."""
        for handle in self.handles:
            handle.remove()


@torch.no_grad()
def zero_gradient_rows(weight: nn.Parameter, masked: Tensor) -> None:
    """Set the gradient rows with the given indices to zero."""
    if weight.grad is not None and len(masked):
        weight.grad[masked] = 0
