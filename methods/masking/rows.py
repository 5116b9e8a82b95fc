"""The rows that output-magnitude methods mask: which weights have them, and what their magnitude is.

Shapes: weight [d_out, d_in] (torch layout: row k makes output channel k), magnitude [d_out].
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.base import Context, at_least_float32
from methods.batch import Batch, StreamName
from methods.shared.passes import evaluating, first
from methods.shared.token_streams import LayerStreams, check_fit

GROUPS = ("attention", "ffn")


@dataclass(frozen=True)
class Rows:
    """A weight whose rows can be masked, and the module whose output gives their magnitude."""

    name: str
    weight: nn.Parameter
    source: nn.Module


def group_of(name: str) -> str:
    """The layer group of a parameter or module inside a block, by its name: "attention", or else "ffn"."""
    return "attention" if re.search("attn|attention", name, re.IGNORECASE) else "ffn"


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
        if not _in_block(name):
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


def block_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers inside numbered blocks whose weight trains; of LoRA, A and B are layers of their own."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.weight.requires_grad and _in_block(name)
    }


def _in_block(name: str) -> bool:
    return any(part.isdigit() for part in name.split("."))


def _weight(linear: nn.Module) -> nn.Parameter:
    weight = linear.weight
    assert isinstance(weight, nn.Parameter)
    return weight


def released_rows(model: nn.Module) -> list[Rows]:
    """The weights that MIGU's released code masks: every linear layer of a T5 or Llama, the LM head included.

    An encoder's pooler and classifier stay out: their outputs are no token's, and a classifier has rows of labels to come.
    """
    rows = block_rows(model)
    if any(".lora_" in r.name for r in rows):
        raise ValueError("released: the released code masks nothing in LoRA (its LoRA path does not run)")
    heads = [(n, m) for n, m in model.named_modules() if n.split(".")[-1] == "lm_head" and isinstance(m, nn.Linear)]
    return rows + [Rows(n, _weight(m), m) for n, m in heads if m.weight.requires_grad]


def chosen_rows(rows: list[Rows], layers: str) -> list[Rows]:
    """Those of a layer group ("all", "attention", "ffn"), or those whose name a regular expression finds."""
    chosen = [r for r in rows if layers == "all" or belongs(r.name, layers)]
    if not chosen:
        raise ValueError(f"layers: none of the maskable layers is {layers!r}; one of them is {rows[0].name!r}")
    return chosen


def belongs(name: str, layers: str) -> bool:
    """Whether a layer is of the group "attention" or "ffn", or found by the regular expression."""
    return group_of(name) == layers if layers in GROUPS else re.search(layers, name) is not None


def ratios_of(rows: list[Rows], ratio: float | Mapping[str, float]) -> list[float]:
    """The kept share of each layer; of a mapping, by the first key to which the layer belongs. Every key must serve."""
    if not isinstance(ratio, Mapping):
        return [ratio] * len(rows)
    keys = [next((key for key in ratio if belongs(r.name, key)), None) for r in rows]
    for r, key in zip(rows, keys, strict=True):
        if key is None:
            raise ValueError(f"ratio: no entry for layer {r.name!r}")
    for key in ratio:
        if key not in keys:
            raise ValueError(f"ratio: entry {key!r} is for none of the layers")
    return [ratio[key] for key in keys if key is not None]


def token_sizes(output: Tensor, per_token_norm: bool) -> Tensor:
    """|y_k| of each token; with `per_token_norm` each token's divided by their sum over the layer's channels."""
    sizes = at_least_float32(output.detach().abs())
    if per_token_norm:
        sizes = sizes / sizes.sum(-1, keepdim=True).clamp(min=torch.finfo(sizes.dtype).tiny)
    return sizes


class Magnitudes:
    """Collects n_k = sum over tokens of |y_k| for every `Rows`, over the micro-batches of a step.

    A sum orders the channels of a layer as the mean over tokens does. Padding does not count unless `count_padding`.
    """

    def __init__(
        self, model: nn.Module, rows: list[Rows], count_padding: bool = False, per_token_norm: bool = False
    ) -> None:
        self.rows = rows
        self.layer_streams = LayerStreams(model)
        self.count_padding = count_padding
        self.per_token_norm = per_token_norm
        self.sums = [torch.zeros(r.weight.shape[0], device=r.weight.device) for r in rows]
        self.masks: dict[StreamName, Tensor] = {}
        self.listening = True
        self.handles = [r.source.register_forward_hook(self._hook(i)) for i, r in enumerate(rows)]

    def see(self, batch: Batch) -> None:
        """Note the padding masks of the micro-batch whose forward pass comes next."""
        self.masks = {name: stream.mask for name, stream in batch.token_streams()}
        if batch.options is not None:  # the same tokens in every micro-batch of a step: together they count once
            self.masks["options"] = batch.options.mask * batch.loss_weight
        self.listening = True

    def pause(self) -> None:
        """That forward pass is over; others, by another method, do not count."""
        self.listening = False

    def _hook(self, i: int) -> Callable[[nn.Module, object, Tensor], None]:
        @torch.no_grad()
        def add(module: nn.Module, inputs: object, output: Tensor) -> None:
            if not (module.training and self.listening):
                return
            sizes = token_sizes(output, self.per_token_norm)
            if self.count_padding:
                self.sums[i] += sizes.flatten(0, -2).sum(0)
                return
            name = self.rows[i].name
            mask = self.masks[self.layer_streams.of(name)]
            check_fit(name, output, mask)
            self.sums[i] += mask.flatten().to(sizes.dtype) @ sizes.flatten(0, -2)

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
def example_magnitudes(
    context: Context, model: nn.Module, rows: list[Rows], batches: Iterable[Batch], samples: int, per_token_norm: bool
) -> list[Tensor]:
    """For each weight [n, d_out], n <= samples: the mean over an example's tokens of |y_k|, but for one common factor.

    The same on all workers, in the order of the examples' places. Without dropout; options belong to no example.
    """
    found = [torch.zeros(samples, r.weight.shape[0], device=r.weight.device) for r in rows]
    there = torch.zeros(samples, device=rows[0].weight.device)
    masks: dict[StreamName, Tensor] = {}
    example_indices: list[int] = []
    layer_streams = LayerStreams(model)

    def hook(i: int) -> Callable[[nn.Module, object, Tensor], None]:
        def note(module: nn.Module, inputs: object, output: Tensor) -> None:
            stream = layer_streams.of(rows[i].name)
            if stream == "options":
                return
            mask = masks[stream]
            check_fit(rows[i].name, output, mask)
            sizes = token_sizes(output, per_token_norm) * mask[..., None]
            found[i][example_indices] = (sizes.sum(1) / mask.sum(1, keepdim=True)).to(found[i].dtype)

        return note

    handles = [r.source.register_forward_hook(hook(i)) for i, r in enumerate(rows)]
    try:
        with evaluating(model):
            for batch in first(batches, samples):
                masks = {name: tokens.mask for name, tokens in batch.token_streams()}
                example_indices = batch.example_indices
                context.forward(model, batch)
                there[batch.example_indices] = 1
    finally:
        for handle in handles:
            handle.remove()
    filled = context.mean_over_workers(there) > 0
    return [context.mean_over_workers(f)[filled] for f in found]


@torch.no_grad()
def zero_gradient_rows(weight: nn.Parameter, masked: Tensor) -> None:
    """Set the gradient rows with the given indices to zero."""
    if weight.grad is not None and len(masked):
        weight.grad[masked] = 0
