"""A model whose weights are read a part at a time, by workers of which each holds a part: none ever has the whole of it.

First the model is built with placeholders, which have a shape and take no memory. A tuning method prepares it, the workers
divide it among them, and then each reads the rows that it holds from the model's files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from methods.shared.shards import local, rows_held
from orchestrator.models.source import ModelSource

Place = tuple[str, str]  # a file, and the tensor's name in it


def with_placeholders(auto_class: Any, described: Any, class_arguments: dict[str, Any]) -> nn.Module:
    """The model of a configuration with placeholders for its parameters, in float32, and with its buffers."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        module: nn.Module = auto_class.from_config(described, **class_arguments)
    module.tie_weights()  # type: ignore[operator]
    made: dict[nn.Parameter, nn.Parameter] = {}
    for child in module.modules():
        for name, parameter in list(child.named_parameters(recurse=False)):
            if parameter not in made:
                # Memory that is never written takes no room. Not on the meta device: what a method adds beside a weight goes
                # to that weight's device, and would get no values there.
                made[parameter] = nn.Parameter(torch.empty(parameter.shape, dtype=torch.float32))
            setattr(child, name, made[parameter])
    return module


class SavedParts:
    """Where a model's files have each parameter of a model with placeholders."""

    def __init__(self, places: dict[nn.Parameter, Place]) -> None:
        self.places = places
        self.by_name: dict[str, Place] = {}

    @classmethod
    def find(cls, source: ModelSource, module: nn.Module) -> SavedParts | None:
        """None where the files do not have every parameter under its own name and in its shape, as safetensors."""
        shapes, files = _saved(source)
        prefix = f"{getattr(module, 'base_model_prefix', '')}."
        places = {}
        for name, parameter in module.named_parameters(remove_duplicate=False):
            # a backbone is saved without the name that a model with a head gives it
            for saved in (name, name.removeprefix(prefix)):
                if shapes.get(saved) == list(parameter.shape):
                    places[parameter] = (files[saved], saved)
        if any(parameter not in places for parameter in module.parameters()):
            return None
        return cls(places)

    def note_names(self, module: nn.Module) -> None:
        """Note under which names a prepared model has the parameters: dividing it makes other ones of them."""
        for name, parameter in module.named_parameters():
            if parameter in self.places:
                self.by_name[name] = self.places[parameter]
        self.places = {}

    @torch.no_grad()
    def fill(self, module: nn.Module) -> None:
        """Read the rows that this worker holds, of every parameter."""
        from safetensors import safe_open

        parameters = dict(module.named_parameters())
        for name, (file, saved) in self.by_name.items():
            parameter = parameters[name]
            with safe_open(file, framework="pt") as tensors:
                local(parameter).copy_(tensors.get_slice(saved)[rows_held(parameter)])


def saved_parts_of(module: nn.Module) -> SavedParts:
    """What is to be read of a model that was built with placeholders; of any other model, nothing."""
    # a sentence encoder wraps the model in a module of ours
    for child in module.modules():
        found = getattr(child, "saved_parts", None)
        if isinstance(found, SavedParts):
            return found
    return SavedParts({})


def _saved(source: ModelSource) -> tuple[dict[str, list[int]], dict[str, str]]:
    """(shape, file) of each tensor in the model's safetensors files; nothing where it has none."""
    from safetensors import safe_open

    shapes = {}
    files = {}
    for file in _files(source):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # it is no mapping
                shapes[name] = tensors.get_slice(name).get_shape()
                files[name] = file
    return shapes, files


def _files(source: ModelSource) -> Iterator[str]:
    """The safetensors files of a folder or, fetched if they are not here yet, of a hub id."""
    index = _file(source, "model.safetensors.index.json")
    if index is None:
        single = _file(source, "model.safetensors")
        if single is not None:
            yield single
        return
    for name in sorted(set(json.loads(Path(index).read_text())["weight_map"].values())):
        file = _file(source, name)
        # one that is named and not there: reading all at once says what is wrong
        if file is not None:
            yield file


def _file(source: ModelSource, name: str) -> str | None:
    from transformers.utils.hub import cached_file

    assert source.path is not None
    return cached_file(
        source.path,
        name,
        revision=source.revision,
        _raise_exceptions_for_missing_entries=False,
    )
