"""Linear layers by the names that a user gives, or that are usual for the architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn


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
        raise ValueError(f"no linear layer is called {' or '.join(targets)}")
    return found


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Let another module take the name, and so the role, of the one that has it."""
    # without a dot the parent is "", which get_submodule takes for the model itself
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
