"""How large a layer's output units are: |y_k| summed over the real tokens of a step, or averaged over each example's.

Shapes: weight [d_out, d_in], output y [B, S, d_out], magnitude [d_out].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from methods.base import Context
from methods.batch import Batch, StreamName
from methods.masking.output_units import MaskableWeight
from methods.shared.passes import evaluating, first
from methods.shared.tensors import at_least_float32, outside_autocast
from methods.shared.token_streams import LayerStreams, by_token

Hook = Callable[[nn.Module, object, Tensor], None]


def token_sizes(output: Tensor, per_token_norm: bool) -> Tensor:
    """|y_k| of each token; with `per_token_norm` each token's divided by their sum over the layer's units."""
    sizes = at_least_float32(output.detach().abs())
    if per_token_norm:
        smallest = torch.finfo(sizes.dtype).tiny
        sizes = sizes / sizes.sum(-1, keepdim=True).clamp(min=smallest)
    return sizes


class Magnitudes:
    """Collects n_k = sum over tokens of |y_k| for every maskable weight, over the micro-batches of a step.

    A sum orders the units of a layer as the mean over tokens does. Padding does not count unless `count_padding`.
    """

    of_a_step = ("masks",)

    def __init__(
        self,
        model: nn.Module,
        weights: list[MaskableWeight],
        count_padding: bool = False,
        per_token_norm: bool = False,
    ) -> None:
        self.weights = weights
        self.layer_streams = LayerStreams(model)
        self.count_padding = count_padding
        self.per_token_norm = per_token_norm
        self.masks: dict[StreamName, Tensor] = {}
        self.listening = True
        self.was_read = [False] * len(weights)
        self.sums = []
        self.handles = []
        for i, maskable in enumerate(weights):
            self.sums.append(torch.zeros(maskable.num_units, device=maskable.weight.device))
            self.handles.append(maskable.measured.register_forward_hook(self._hook(i)))

    def see(self, batch: Batch) -> None:
        """Note the padding masks of the micro-batch whose forward pass comes next."""
        self.masks = {}
        for name, stream in batch.token_streams():
            self.masks[name] = stream.mask
        if batch.options is not None:
            # every micro-batch of a step reads the same options: weighted so, together they count once
            self.masks["options"] = batch.options.mask * batch.loss_weight
        self.listening = True

    def pause(self) -> None:
        """That forward pass is over; others, by another method, do not count."""
        self.listening = False

    def _hook(self, i: int) -> Hook:
        name = self.weights[i].name

        @torch.no_grad()
        def add(module: nn.Module, inputs: object, output: Tensor) -> None:
            # methods' own passes run in evaluation mode
            if not (module.training and self.listening):
                return
            self.was_read[i] = True
            sizes = token_sizes(output, self.per_token_norm)
            if self.count_padding:
                self.sums[i] += sizes.flatten(0, -2).sum(0)
                return
            mask = self.masks[self.layer_streams.of(name)]
            sizes = by_token(name, sizes, mask)
            # a product, not a choice: the options' mask holds weights
            with outside_autocast(sizes):
                self.sums[i] += mask.flatten().to(sizes.dtype) @ sizes.flatten(0, -2)

        return add

    def take(self, mean_over_workers: Callable[[Tensor], Tensor]) -> Iterator[tuple[MaskableWeight, Tensor]]:
        """Each weight with its magnitude [d_out], averaged over workers in one fused vector; then starts anew.

        Raises ValueError where a layer never ran: its zeros would be taken for the sizes of its units.
        """
        # a worker without a micro-batch has run none of them
        if any(self.was_read) and not all(self.was_read):
            name = self.weights[self.was_read.index(False)].name
            raise ValueError(f"layer {name!r} has not run as a layer, so the sizes of its output units are unknown")
        # one exchange a step instead of one for each layer
        fused = mean_over_workers(torch.cat(self.sums))
        parts = fused.split(list(map(len, self.sums)))
        for total in self.sums:
            total.zero_()
        yield from zip(self.weights, parts, strict=True)

    def close(self) -> None:
        """Remove the forward hooks."""
        for handle in self.handles:
            handle.remove()


class _ExampleMagnitudes:
    """What `example_magnitudes` has found so far: by weight [samples, d_out], and which examples were there."""

    def __init__(self, model: nn.Module, weights: list[MaskableWeight], samples: int, per_token_norm: bool) -> None:
        self.layer_streams = LayerStreams(model)
        self.per_token_norm = per_token_norm
        self.found = []
        for maskable in weights:
            self.found.append(torch.zeros(samples, maskable.num_units, device=maskable.weight.device))
        self.present = torch.zeros(samples, device=weights[0].weight.device)
        self.batch: Batch | None = None

    def see(self, batch: Batch) -> None:
        """Note the micro-batch whose forward pass comes next."""
        self.batch = batch
        self.present[batch.example_indices] = 1

    def hook(self, i: int, name: str) -> Hook:
        """Adds a layer's means to what was found."""

        def note(module: nn.Module, inputs: object, output: Tensor) -> None:
            assert self.batch is not None
            stream = self.layer_streams.of(name)
            # they belong to no example
            if stream == "options":
                return
            mask = self.batch.stream(stream).mask
            sizes = token_sizes(by_token(name, output, mask), self.per_token_norm) * mask[..., None]
            means = sizes.sum(1) / mask.sum(1, keepdim=True)
            self.found[i][self.batch.example_indices] = means.to(self.found[i].dtype)

        return note


@torch.no_grad()
def example_magnitudes(
    context: Context,
    model: nn.Module,
    weights: list[MaskableWeight],
    batches: Iterable[Batch],
    samples: int,
    per_token_norm: bool,
) -> list[Tensor]:
    """The mean over an example's tokens of |y_k|, but for one common factor: for each weight [n, d_out], n <= samples.

    The same on all workers, in the order of the examples' indices. Without dropout; options belong to no example.
    """
    collected = _ExampleMagnitudes(model, weights, samples, per_token_norm)
    handles = []
    for i, maskable in enumerate(weights):
        handles.append(maskable.measured.register_forward_hook(collected.hook(i, maskable.name)))
    try:
        with evaluating(model):
            for batch in first(batches, samples):
                collected.see(batch)
                context.forward(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    # each worker saw its own examples, and has zeros for the others: the mean is the value but for the number of workers
    is_filled = context.mean_over_workers(collected.present) > 0
    magnitudes = []
    for found in collected.found:
        magnitudes.append(context.mean_over_workers(found)[is_filled])
    return magnitudes
