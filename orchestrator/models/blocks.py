"""A transformer as a row of blocks: what is divided, compiled or computed again goes block by block."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from methods.shared.quantised import KINDS, can_be_quantised, quantise


def blocks_of(model: nn.Module) -> Iterator[nn.Module]:
    """The transformer's blocks: the members of its outermost lists of modules."""
    inside = ""
    for name, module in model.named_modules():
        if inside and name.startswith(inside):
            continue
        if isinstance(module, nn.ModuleList) and len(module) > 0:
            inside = f"{name}."
            yield from module


def checkpoint_activations(model: nn.Module) -> None:
    """Keep each block's input alone for the backward pass, which computes what lies between once more: the same values.

    Raises ValueError where transformers cannot do so for the architecture. (What runs through it in evaluation mode keeps all.)
    """
    from transformers import PreTrainedModel

    # a sentence encoder wraps the model of transformers in a module of ours
    inner = next(module for module in model.modules() if isinstance(module, PreTrainedModel))
    # the older form would lose the gradients of a block whose input needs none, as beneath adapters
    inner.activation_checkpointing_enable({"use_reentrant": False})


def compile_blocks(model: nn.Module) -> None:
    """Have each block compiled when it first runs; blocks of one shape share the compiled code."""
    for block in blocks_of(model):
        block.compile()


def shrink_frozen(model: nn.Module, base: str, has_values: bool = True) -> None:
    """Give what does not train the type that `model.base` says. Raises ValueError where there is nothing of the kind."""
    if base == "bf16":
        halve_frozen(model, has_values)
    elif base in KINDS:
        quantise_frozen(model, base)


def quantise_frozen(model: nn.Module, kind: str) -> None:
    """Keep the blocks' linear layers that do not train in 8 or 4 bits. Raises ValueError where all do.

    What else is frozen stays as it is, as peft has it: embeddings, norms, biases and the layer over the vocabulary.
    """
    found: list[nn.Module] = []
    for block in blocks_of(model):
        found.extend(filter(can_be_quantised, block.modules()))
    if not found:
        raise ValueError(f"model.base: {kind!r} is for linear layers that the tuning method freezes, and there is none")
    for linear in found:
        quantise(linear, kind)


@torch.no_grad()
def halve_frozen(model: nn.Module, has_values: bool = True) -> None:
    """Make bfloat16 of the parameters that do not train. Raises ValueError where all do.

    Without values only room is made for them.
    """
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    if not frozen:
        raise ValueError("model.base: 'bf16' is for weights that the tuning method freezes, and all of them train")
    for parameter in frozen:
        if has_values:
            parameter.data = parameter.data.to(torch.bfloat16)
        else:
            parameter.data = torch.empty(parameter.shape, dtype=torch.bfloat16, device=parameter.device)
