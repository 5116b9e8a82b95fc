"""Linear layers by the names that a user gives, or that are usual for the architecture."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from torch import Tensor, nn

L = TypeVar("L", bound=nn.Module)

# What architectures call the projections to query and value, alone or fused with the key; tried in this order. A Mamba has
# none: of its layers in_proj alone is called as a layer in every implementation (fast kernels take the others' weights).
_ADAPTED = (
    re.compile(r"(q|v|query|value)(_lin|_proj)?|qkv|qkv_proj|Wqkv|query_key_value|c_attn"),
    re.compile(r"in_proj"),
)


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer: torch's, or that of GPT-2 in transformers."""
    return isinstance(module, nn.Linear) or is_transposed(module)


def is_transposed(module: nn.Module) -> bool:
    """Whether a module is the linear layer of GPT-2, `Conv1D`, whose weight is [d_in, d_out]: a column is an output unit."""
    # here, not above: methods without a model of transformers need not wait for it
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def adapter_targets(model: nn.Module) -> list[str]:
    """Where a LoRA goes by default: peft's choice for the architecture, or else the layers that give query and value.

    Raises ValueError where there are none.
    """
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as USUAL

    kind = str(getattr(model.config, "model_type", "unknown"))
    if kind in USUAL:
        return list(USUAL[kind])
    names = set()
    for path, module in model.named_modules():
        if is_linear(module):
            # where an adapter is there already, the layer that it was put on
            names.add(path.removesuffix(".base_layer").rpartition(".")[2])
    for pattern in _ADAPTED:
        found = sorted(filter(pattern.fullmatch, names))
        if found:
            return found
    known = ", ".join(sorted(names))
    raise ValueError(f"no usual target modules for a {kind!r} model; name them in `targets`, among {known}")


def usual_targets(model: nn.Module, by_architecture: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """What is usual for the model's architecture. Raises ValueError where nothing is known."""
    kind = str(getattr(model.config, "model_type", "unknown"))
    if kind not in by_architecture:
        raise ValueError(f"no usual target modules for a {kind!r} model; name them in `targets`")
    return tuple(by_architecture[kind])


def target_linears(model: nn.Module, targets: Sequence[str]) -> dict[str, nn.Linear]:
    """The linear layers whose name is, or ends in a dot and, one of `targets`. Raises ValueError where there are none."""
    # a target may be a path itself, such as attention.output.dense; but "o" must not find "foo"
    endings = tuple(f".{target}" for target in targets)
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and f".{name}".endswith(endings):
            found[name] = module
    if not found:
        names = set()
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                names.add(name.rpartition(".")[2])
        known = ", ".join(sorted(names))
        raise ValueError(f"no linear layer is called {' or '.join(targets)}; there are {known or 'none'}")
    return found


def by_units(module: nn.Module, tensor: Tensor) -> Tensor:
    """A linear layer's weight, or its gradient, as [d_out, d_in]: a view, so that writing into it writes into the tensor."""
    if is_transposed(module):
        return tensor.T
    return tensor


def replace_targets(model: nn.Module, targets: Sequence[str] | None, make: Callable[[nn.Linear], L]) -> dict[str, L]:
    """Let what `make` gives for each target layer take its place; the new layers by name.

    Without targets these are `adapter_targets`. Raises ValueError where there are none.
    """
    made = {}
    for name, linear in target_linears(model, targets or adapter_targets(model)).items():
        made[name] = make(linear)
        replace_module(model, name, made[name])
    return made


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Let another module take the name, and so the role, of the one that has it."""
    # without a dot the parent is "", which get_submodule takes for the model itself
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
