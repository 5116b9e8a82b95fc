"""Models that differ in their adapters alone, computed as one: a group reads a batch once for each of its models, side by side.

Shapes: K models, N texts for all of them (the first model's B first), I inputs and O outputs of a layer, R rank.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from methods.adapters.adapter_per_task import lora_layers
from methods.shared.linears import replace_module
from methods.shared.tensors import trainable


class LoraGroup:
    """One model that computes what several do, whose frozen weights are the same and whose LoRA layers and heads are their own.

    Gradients go to the parameters of the models themselves, and a model that gives no numbers disturbs no other one. Dropout on
    an adapter's input draws once, as each model alone would from the same state of the generator. The models' other dropout
    would draw for each of them anew, so it has to be off.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        """Raises ValueError where something trains that is neither an adapter nor a linear layer."""
        self.size = len(models)
        self.rows = 0
        first = models[0]
        # the structure is copied, and of the frozen weights nothing: they are those of the first model
        shared: dict[int, Any] = {}
        for tensor in (*first.parameters(), *first.buffers()):
            shared[id(tensor)] = tensor
        self.module = copy.deepcopy(first, shared)
        for name, _ in lora_layers(first):
            layers = [model.get_submodule(name) for model in models]
            replace_module(self.module, name, _GroupedLora(self, layers))
        for name, module in first.named_modules():
            if isinstance(module, nn.Linear) and module.weight.requires_grad and ".lora_" not in name:
                layers = [model.get_submodule(name) for model in models]
                replace_module(self.module, name, _GroupedLinear(self, layers))
        # the grouped layers register none of the parameters that they read
        for name in trainable(self.module):
            raise ValueError(f"{name!r} trains, and is no part of an adapter or of a linear layer")

    def logits(self, inputs: Mapping[str, Any]) -> Sequence[Tensor]:
        """Each model's logits for one and the same batch."""
        repeated = {}
        for name, value in inputs.items():
            repeated[name] = value
            if isinstance(value, Tensor):
                repeated[name] = torch.cat([value] * self.size)
                self.rows = len(repeated[name])
        # cut at once: of slices that are taken one by one, each would have a gradient of the whole's size
        return self.module(**repeated).logits.chunk(self.size)

    def products(self, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """[N, ..., O]: each model's rows of x [N, ..., I] times its own weight [O, I]."""
        # DeBERTa's projections read relative positions too, and experts of a mixture some tokens: those are no model's rows
        if len(x) != self.rows:
            raise ValueError(
                f"a layer reads {len(x)} rows where there are {self.rows} texts, so its models cannot be told apart"
            )
        x_KMI = x.reshape(self.size, -1, x.shape[-1])
        product_KMO = torch.bmm(x_KMI, torch.stack(list(weights)).transpose(1, 2))
        return product_KMO.reshape(*x.shape[:-1], -1)


class _GroupedLora(nn.Module):
    """y_k = W x_k + (alpha / r) sum over adapters of B_k A_k x_k, for each model k."""

    def __init__(self, group: LoraGroup, layers: Sequence[Any]) -> None:
        super().__init__()
        self.group = group
        # in a tuple nothing is registered: these are parts of the models
        self.layers = tuple(layers)

    def forward(self, x: Tensor) -> Tensor:
        first = self.layers[0]
        result = first.base_layer(x)
        dtype = result.dtype
        for adapter in first.active_adapters:
            down = [layer.lora_A[adapter].weight for layer in self.layers]
            up = [layer.lora_B[adapter].weight for layer in self.layers]
            # a frozen base may be narrower than its adapters
            read = self._dropped(first.lora_dropout[adapter], x.to(down[0].dtype))
            hidden = self.group.products(read, down)
            result = result + self.group.products(hidden, up) * first.scaling[adapter]
        return result.to(dtype)

    def _dropped(self, dropout: nn.Module, x: Tensor) -> Tensor:
        """Dropout with one mask for all models."""
        if isinstance(dropout, nn.Identity):
            return x
        x_KB = x.unflatten(0, (self.group.size, -1))
        mask_B = dropout(torch.ones_like(x_KB[0]))
        return (x_KB * mask_B).flatten(0, 1)


class _GroupedLinear(nn.Module):
    """y_k = W_k x_k + b_k, for each model k: a layer of a task head."""

    def __init__(self, group: LoraGroup, layers: Sequence[Any]) -> None:
        super().__init__()
        self.group = group
        self.layers = tuple(layers)

    def forward(self, x: Tensor) -> Tensor:
        y = self.group.products(x, [layer.weight for layer in self.layers])
        if self.layers[0].bias is None:
            return y
        bias_KO = torch.stack([layer.bias for layer in self.layers])
        # a model's bias for each of its texts, whatever dimensions lie between
        bias_NO = bias_KO.repeat_interleave(len(x) // self.group.size, 0)
        return y + bias_NO.reshape(len(x), *[1] * (x.ndim - 2), -1)
