"""What enters each linear layer over a sample of a task: second moments, random projections of them, energies in a basis.

Shapes: d_in the width of a layer's input, r the columns of a sketch, K those of a basis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from methods.base import Context, at_least_float32, generator
from methods.batch import Batch, StreamName
from methods.shared.shards import local
from methods.shared.tensors import outside_autocast
from methods.shared.token_streams import LayerStreams, by_token

# part of the random projections' seeds, which must stay as they are
SEED_NAMES: dict[StreamName, str] = {"source": "attention_mask", "target": "decoder_attention_mask"}


class LayerInputs:
    """Hands on the real tokens that enter each linear layer, [tokens, d_in] in float32 at least, outside autocast."""

    def __init__(self, model: nn.Module, layers: Mapping[str, nn.Linear]) -> None:
        self.layer_streams = LayerStreams(model)
        self.masks: dict[StreamName, Tensor] = {}
        self.handles = []
        for name, layer in layers.items():
            self.handles.append(layer.register_forward_pre_hook(self._hook(name)))

    def see(self, batch: Batch) -> None:
        """Note the real tokens of the batch whose forward pass comes next. Options belong to no example: not counted."""
        self.masks = {}
        for stream, tokens in batch.token_streams():
            if stream != "options":
                self.masks[stream] = tokens.mask.bool()

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def take(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            stream = self.layer_streams.of(name)
            if stream == "options":
                return
            mask = self.masks[stream]
            x = at_least_float32(by_token(name, inputs[0], mask)[mask])
            with outside_autocast(x):
                self.add(name, stream, x)

        return take

    def add(self, name: str, stream: StreamName, x: Tensor) -> None:
        """Take up the tokens x of a layer, which read a stream."""
        raise NotImplementedError

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self.handles:
            handle.remove()


class Moments(LayerInputs):
    """Sums x x^T over the tokens x that enter each linear layer; or x omega^T, omega a random [r] for each token."""

    def __init__(
        self, model: nn.Module, layers: Mapping[str, nn.Linear], sketch: int | None, seed_parts: tuple[object, ...]
    ) -> None:
        super().__init__(model, layers)
        self.sketch = sketch
        self.seed_parts = seed_parts
        self.omegas: dict[StreamName, Tensor] = {}
        self.sums: dict[str, Tensor] = {}
        for name, layer in layers.items():
            weight = at_least_float32(local(layer.weight))
            self.sums[name] = weight.new_zeros(layer.in_features, sketch or layer.in_features)

    def see(self, batch: Batch) -> None:
        super().see(batch)
        for stream, mask in self.masks.items():
            if self.sketch is not None:
                self.omegas[stream] = self._omega(SEED_NAMES[stream], mask, batch, self.sketch)

    def _omega(self, name: str, mask: Tensor, batch: Batch, sketch: int) -> Tensor:
        """[tokens, r]: drawn for each example by its index, so that it is the same in any micro-batch and on any worker."""
        draws = []
        for example_index, num_tokens in zip(batch.example_indices, mask.sum(1), strict=True):
            rng = generator(*self.seed_parts, name, example_index)
            draws.append(torch.randn(int(num_tokens), sketch, generator=rng))
        # drawn on the CPU, so that a run on another device sketches the same
        return torch.cat(draws).to(mask.device)

    def add(self, name: str, stream: StreamName, x: Tensor) -> None:
        other = x
        if self.sketch is not None:
            # all layers that read a stream share its draws: each layer's moment is estimated by itself
            other = self.omegas[stream].to(x.dtype)
        self.sums[name] += x.T @ other

    def moment(self, name: str, context: Context) -> Tensor:
        """C over all workers but for a factor; of a sketch S, S S^T, whose expectation is C times r."""
        total = context.mean_over_workers(self.sums[name])
        if self.sketch is None:
            return total
        # squared after the mean, so that it does not depend on how the examples are spread over workers
        return total @ total.T


class Energies(LayerInputs):
    """Sums (m . x)^2 for each column m of a layer's basis over the tokens x that enter it, and last x . x."""

    def __init__(self, model: nn.Module, layers: Mapping[str, nn.Linear], bases: Mapping[str, Tensor]) -> None:
        super().__init__(model, layers)
        self.bases = bases
        self.sums: dict[str, Tensor] = {}
        for name, basis in bases.items():
            self.sums[name] = basis.new_zeros(basis.shape[1] + 1)

    def add(self, name: str, stream: StreamName, x: Tensor) -> None:
        energy_K = (x @ self.bases[name]).square().sum(0)
        self.sums[name] += torch.cat([energy_K, x.square().sum()[None]])
