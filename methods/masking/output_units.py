"""The output units that methods mask: which weights of a model have them, and choosing among those weights.

Shapes: weight [d_out, d_in]. weight[k] makes output unit k, so masking unit k means leaving weight[k] as it is. GPT-2's
weights are [d_in, d_out]; they are read and written through views (`MaskableWeight.units`). Of a sharded weight each worker
holds some units; which units are masked is known on all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.shared.linears import by_units, is_linear, is_transposed
from methods.shared.shards import is_sharded, local, rows_held, sum_of_parts

GROUPS = ("attention", "ffn")


@dataclass(frozen=True)
class MaskableWeight:
    """A weight whose output units can be masked: the linear layer `owner` has it, `measured`'s output tells their sizes."""

    name: str
    weight: nn.Parameter
    measured: nn.Module
    owner: nn.Module

    @property
    def units(self) -> Tensor:
        """[d_out, d_in]: a row for each unit that this worker holds. A view of the weight without its gradient."""
        return by_units(self.owner, local(self.weight))

    @property
    def unit_gradients(self) -> Tensor | None:
        """[d_out, d_in]: a view of the gradient, of the units that this worker holds; None where there is none."""
        if self.weight.grad is None:
            return None
        return by_units(self.owner, local(self.weight.grad))

    @property
    def num_units(self) -> int:
        """d_out, over all workers."""
        return len(by_units(self.owner, self.weight.detach()))

    def held(self, by_unit: Tensor) -> Tensor:
        """Of a value for each unit [d_out], those of the units that this worker holds."""
        if not is_sharded(self.weight):
            return by_unit
        return by_unit[rows_held(self.weight)]

    def index_of(self, chosen: Tensor) -> Tensor:
        """An index into `units` of those among the units with the given indices that this worker holds."""
        if not is_sharded(self.weight):
            return chosen
        # a mask: how many of them this worker holds is known on the device alone
        is_chosen = torch.zeros(self.num_units, dtype=torch.bool, device=chosen.device)
        is_chosen[chosen] = True
        return self.held(is_chosen)

    def of_all(self, of_held: Tensor) -> Tensor:
        """A value for each unit [d_out], from those that each worker has for the units that it holds."""
        if not is_sharded(self.weight):
            return of_held
        together = of_held.new_zeros(self.num_units)
        together[rows_held(self.weight)] = of_held
        return sum_of_parts(together, self.weight)


def group_of(name: str) -> str:
    """The layer group of a parameter or module inside a block, by its name: "attention", or else "ffn"."""
    if re.search("attn|attention", name, re.IGNORECASE):
        return "attention"
    return "ffn"


def masked_count(keep_ratio: float, units: int) -> int:
    """floor((1 - keep_ratio) * units), as units - ceil(keep_ratio * units): exact for ratios such as 0.9 in binary."""
    # 1e-9: a product that is whole in decimals may lie just above in binary, and would be rounded up
    return units - math.ceil(keep_ratio * units - 1e-9)


def maskable_weights(model: nn.Module) -> list[MaskableWeight]:
    """The maskable weights of a transformer: the trainable linear layers inside its numbered blocks.

    Those are query, key, value and output of every attention and the linear layers of the feed-forward blocks. Embeddings,
    norms, biases, the LM head, poolers and classifiers are outside (arXiv 2406.17245). A LoRA layer gives two for each
    adapter that trains: A by its own output |A x|, and B by the output of the whole layer, W x + (alpha / r) B A x.

    Raises ValueError where there is none, and where experts train that are no layers of their own.
    """
    _refuse_packed_experts(model)
    found: list[MaskableWeight] = []
    adapter_layers: list[str] = []
    for name, module in model.named_modules():
        if not in_block(name):
            continue
        downs = getattr(module, "lora_A", None)
        ups = getattr(module, "lora_B", None)
        if isinstance(downs, nn.ModuleDict) and isinstance(ups, nn.ModuleDict):
            # named_modules() names a layer before those inside it: the adapter's own and its frozen base are passed over
            adapter_layers.append(name + ".")
            for adapter, down in downs.items():
                up = ups[adapter]
                found.append(MaskableWeight(f"{name}.lora_A.{adapter}", _weight(down), down, down))
                found.append(MaskableWeight(f"{name}.lora_B.{adapter}", _weight(up), module, up))
        elif is_linear(module) and not name.startswith(tuple(adapter_layers)):
            if is_transposed(module) and is_sharded(module.weight):
                raise ValueError(
                    f"layer {name!r} has a transposed weight (GPT-2's Conv1D), of which each worker holds a part of every "
                    "unit; its units can be masked with scaling.strategy: ddp"
                )
            found.append(MaskableWeight(name, _weight(module), module, module))
    trained = []
    for maskable in found:
        if maskable.weight.requires_grad:
            trained.append(maskable)
    if not trained:
        raise ValueError("no trainable linear layer inside a numbered transformer block: nothing to mask")
    return trained


def block_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers inside numbered blocks whose weight trains; of LoRA, A and B are layers of their own.

    Raises ValueError where there is none, for GPT-2's transposed layers, and where experts train that are no layers.
    """
    _refuse_packed_experts(model)
    found = {}
    for name, module in model.named_modules():
        if not in_block(name):
            continue
        if is_transposed(module) and _weight(module).requires_grad:
            raise ValueError(f"layer {name!r} has a transposed weight (GPT-2's Conv1D), which is not supported here")
        if isinstance(module, nn.Linear) and module.weight.requires_grad:
            found[name] = module
    if not found:
        raise ValueError("no trainable linear layer inside a numbered transformer block")
    return found


def _refuse_packed_experts(model: nn.Module) -> None:
    """Raises ValueError where a mixture's experts, which train, lie in one tensor [experts, …]: their units would be missed."""
    for name, module in model.named_modules():
        if not in_block(name) or isinstance(module, nn.Conv1d | nn.Conv2d):
            continue
        for own_name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim > 2 and parameter.requires_grad:
                raise ValueError(
                    f"{name}.{own_name} holds several experts in one tensor, whose output units cannot be told apart; "
                    f"those of `tuning: lora` can be masked"
                )


def in_block(name: str) -> bool:
    """Whether a module lies inside a numbered block, by its name."""
    for part in name.split("."):
        if part.isdigit():
            return True
    return False


def _weight(linear: nn.Module) -> nn.Parameter:
    weight = linear.weight
    assert isinstance(weight, nn.Parameter)
    return weight


def released_weights(model: nn.Module) -> list[MaskableWeight]:
    """The weights that MIGU's released code masks: every linear layer of a T5 or Llama, the LM head included.

    An encoder's pooler and classifier stay out: their outputs are no token's, and a classifier has units of labels to come.
    """
    found = maskable_weights(model)
    for maskable in found:
        if ".lora_" in maskable.name:
            raise ValueError("released: the released code masks nothing in LoRA (its LoRA path does not run)")
    for name, module in model.named_modules():
        is_head = name.split(".")[-1] == "lm_head" and isinstance(module, nn.Linear)
        if is_head and _weight(module).requires_grad:
            found.append(MaskableWeight(name, _weight(module), module, module))
    return found


def chosen_weights(weights: list[MaskableWeight], layers: str) -> list[MaskableWeight]:
    """Those of a layer group ("all", "attention", "ffn"), or those whose name a regular expression finds.

    Raises ValueError where there is none.
    """
    chosen = []
    for maskable in weights:
        if layers == "all" or belongs(maskable.name, layers):
            chosen.append(maskable)
    if not chosen:
        raise ValueError(f"layers: none of the maskable layers is {layers!r}; one of them is {weights[0].name!r}")
    return chosen


def weights_to_mask(model: nn.Module, layers: str, released: bool) -> list[MaskableWeight]:
    """What MIGU masks: the weights of a layer group, or those of the released code. Raises ValueError where there are none."""
    if released:
        return released_weights(model)
    return chosen_weights(maskable_weights(model), layers)


def belongs(name: str, layers: str) -> bool:
    """Whether a layer is of the group "attention" or "ffn", or found by the regular expression."""
    if layers in GROUPS:
        return group_of(name) == layers
    return re.search(layers, name) is not None


def ratios_of(weights: list[MaskableWeight], ratio: float | Mapping[str, float]) -> list[float]:
    """The kept share of each layer; of a mapping, by the first key to which the layer belongs.

    Raises ValueError for a layer without a key and for a key without a layer: both are slips in the settings.
    """
    if not isinstance(ratio, Mapping):
        return [ratio] * len(weights)
    ratios = []
    used_keys = set()
    for maskable in weights:
        # the first key wins, so a pattern for one layer is written before its group
        for key in ratio:
            if belongs(maskable.name, key):
                used_keys.add(key)
                ratios.append(ratio[key])
                break
        else:
            raise ValueError(f"ratio: no entry for layer {maskable.name!r}")
    for key in ratio:
        if key not in used_keys:
            raise ValueError(f"ratio: entry {key!r} is for none of the layers")
    return ratios


@torch.no_grad()
def zero_unit_gradients(maskable: MaskableWeight, masked: Tensor) -> None:
    """Set the gradient of the output units with the given indices to zero."""
    gradients = maskable.unit_gradients
    if gradients is not None and len(masked):
        gradients[maskable.index_of(masked)] = 0
