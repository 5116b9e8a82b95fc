"""A low-rank adapter for every task, side by side in one model: the base of the tuning methods that keep one for each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from methods.adapters.lora import LoraSettings, inject_lora, is_adapter
from methods.base import TuningMethod, generator, trainable
from methods.shared.tensors import freeze_all_but


class AdapterPerTaskSettings(LoraSettings):
    """As LoRA's, for each of the adapters."""


def lora_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers that have adapters, by name."""
    from peft.tuners.lora import LoraLayer

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            assert isinstance(module, nn.Module)
            yield name, module


@torch.no_grad()
def grow_adapters(model: nn.Module, settings: LoraSettings, tasks: int, seed: int) -> None:
    """Bring the model to `tasks` adapters, named "0", "1", …, of which the last trains.

    A new one starts at B = 0 and A uniform in ±1/sqrt(d_in), as peft's do, but drawn from (seed, layer, adapter).
    """
    # read before peft is called, which freezes all that is no adapter
    adapter_names = adapters(model).keys()
    head = []
    for name, parameter in trainable(model).items():
        if name not in adapter_names:
            head.append(parameter)
    present = num_adapters(model)
    # a state of fewer tasks may be loaded into a model that has trained more
    for adapter in range(tasks, present):
        for _, layer in lora_layers(model):
            layer.delete_adapter(str(adapter))  # type: ignore[operator]
    for adapter in range(present, tasks):
        add_adapter(model, settings, adapter, seed)
    # a layer adds up its active adapters only, and injecting one makes it the only active one
    active = list(map(str, range(tasks)))
    for _, layer in lora_layers(model):
        layer.set_adapter(active)  # type: ignore[operator]
    # after `set_adapter`, which lets every active adapter train
    for name, parameter in adapters(model).items():
        parameter.requires_grad_(name.endswith(f".{tasks - 1}.weight"))
    for parameter in head:
        parameter.requires_grad_(True)


def num_adapters(model: nn.Module) -> int:
    """The number of adapters that each layer has."""
    count = 0
    for _, layer in lora_layers(model):
        count = max(count, len(layer.lora_A))  # type: ignore[arg-type]
    return count


@torch.no_grad()
def add_adapter(model: nn.Module, settings: LoraSettings, adapter: int, seed: int) -> None:
    """Add the adapter of that number to every layer, drawn from the seed, whatever peft drew."""
    # peft leaves its config on the model, and warns of a second adapter where it finds one; a second one is meant
    model.__dict__.pop("peft_config", None)
    inject_lora(model, settings, str(adapter))
    for name, layer in lora_layers(model):
        a_RI: Tensor = layer.lora_A[str(adapter)].weight  # type: ignore[index, union-attr]
        # one generator a layer and adapter: growing to three tasks at once, as a resumed run does, draws the same as
        # growing three times
        drawn_RI = torch.rand(a_RI.shape, generator=generator(seed, "lora", name, adapter))
        a_RI.copy_((2 * drawn_RI - 1) / math.sqrt(a_RI.shape[1]))


def adapters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of all adapters, by name."""
    found = {}
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            found[name] = parameter
    return found


class AdapterPerTask(TuningMethod):
    """A tuning method with a low-rank adapter for every task, all of which a checkpoint holds."""

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        freeze_all_but(model, head)
        return model

    def grow(self, model: nn.Module, tasks: int) -> None:
        grow_adapters(model, self.settings, tasks, self.context.seed)

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        # the earlier adapters are frozen, so `trainable` alone would leave them out
        return {**adapters(model), **trainable(model)}
