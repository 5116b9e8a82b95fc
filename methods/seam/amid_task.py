"""What a method holds amid a task, read from its attributes and put back into them: no method has to say it.

A process that goes on amid a task begins it as every process does, with `before_task`: hooks, projections and masks are then
there, and of what the method holds only that differs which the steps since have changed. These are tensors, numbers, texts and
generators, in attributes of the method's parts and of the objects of its own that they refer to. What belongs to the model is
the model's own state, and what nothing has written to since `before_task` need not be kept.

A value is put back in place wherever there is one, since a hook may refer to the very same tensor, list or object. An object
that only a step makes, such as a batch, is left out: a method must not go on with it in the next step. So is what a class names
in `of_a_step`: attributes that each step makes anew, perhaps from its own worker's examples alone.
"""

from __future__ import annotations

import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from methods.base import Context, Method

# An encoded value: `plain`, `tensor_values`, `generator`, `items` of a sequence or mapping, or `attributes` of an object;
# empty where it is left out
Node = dict[str, Any]
# Of tensors by their ids
Versions = dict[int, tuple[weakref.ref[Tensor], int | None]]
WriteRows = Callable[[Any, Tensor], None]

_FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType, type)
# Libraries whose objects are as `before_task` makes them, or are the model's
_FOREIGN = {"torch", "transformers", "peft", "numpy", "scipy", "pydantic", *sys.stdlib_module_names}
_OF_ANY_MODULE = frozenset(vars(nn.Module()))
_CONTAINERS = ("_parameters", "_buffers", "_modules")


class AmidTask:
    """The attributes of a method's parts while a task is trained. To be made after `before_task`, before the first step."""

    def __init__(self, parts: Sequence[tuple[str, Method]], model: nn.Module) -> None:
        self.parts = parts
        self.model = model
        # each with its version, which counts what is written to it; not kept alive where the method lets go of it
        self.before_steps: Versions = {}
        reader = _Reader(model)
        for _, part in parts:
            reader.node(part)
        for tensor in reader.tensors:
            self.before_steps[id(tensor)] = (weakref.ref(tensor), _version(tensor))

    def read(self) -> dict[str, Node]:
        """What the parts hold, by their place among the parts: nested mappings of tensors and plain values."""
        reader = _Reader(self.model, self.before_steps)
        nodes = {}
        for number, (name, part) in enumerate(self.parts):
            nodes[f"{number}:{name}"] = reader.node(part)
        return nodes

    @torch.no_grad()
    def put_back(self, nodes: Mapping[str, Node], write_rows: WriteRows) -> None:
        """Have the parts hold what `read` gave. `write_rows(tensor, rows)` writes whole rows into a tensor, sharded or not."""
        writer = _Writer(self.model, write_rows)
        for number, (name, part) in enumerate(self.parts):
            writer.value(part, nodes[f"{number}:{name}"])


class _Reader:
    """Encodes values. What was met before is left out: it is put back once."""

    def __init__(self, model: nn.Module, unchanged: Versions | None = None) -> None:
        self.unchanged = unchanged or {}
        self.tensors: list[Tensor] = []
        self.seen: set[int] = set()
        # kept alive as long as their ids are compared
        self.met: list[Any] = []
        self.names = _names(model)
        self.storages = set()
        for tensor in (*model.parameters(), *model.buffers()):
            self.storages.add(_storage(tensor))

    def node(self, value: Any) -> Node:
        """A value, encoded."""
        if _is_plain(value):
            return {"plain": value}
        if id(value) in self.seen:
            return {}
        self.seen.add(id(value))
        self.met.append(value)
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, torch.Generator):
            return {"generator": value.get_state()}
        if isinstance(value, list | tuple | deque):
            return {"items": self._numbered(value)}
        if isinstance(value, set | frozenset):
            return {"plain": list(value)} if _is_plain(list(value)) else {}
        if isinstance(value, Mapping):
            keys = [_encoded_key(key, self.names) for key in value]
            return {"keys": keys, "items": self._numbered(list(value.values()))}
        return self._object(value)

    def _tensor(self, tensor: Tensor) -> Node:
        # a view of a weight is the weight's own, which is put back with the model
        if _storage(tensor) in self.storages:
            return {}
        self.tensors.append(tensor)
        if self._is_unchanged(tensor):
            return {}
        return {"tensor_values": tensor.detach(), "device": tensor.device.type}

    def _is_unchanged(self, tensor: Tensor) -> bool:
        version = _version(tensor)
        if version is None or id(tensor) not in self.unchanged:
            return False
        before, version_before = self.unchanged[id(tensor)]
        # an id is given again when its tensor is gone
        return before() is tensor and version == version_before

    def _numbered(self, values: Sequence[Any]) -> dict[str, Node]:
        nodes = {}
        for number, value in enumerate(values):
            nodes[str(number)] = self.node(value)
        return nodes

    def _object(self, value: Any) -> Node:
        attributes = {}
        for name in _attributes(value):
            node = self.node(getattr(value, name))
            if node:
                attributes[name] = node
        return {"attributes": attributes} if attributes else {}


class _Writer:
    """Puts encoded values back."""

    def __init__(self, model: nn.Module, write_rows: WriteRows) -> None:
        self.write_rows = write_rows
        self.device = next(model.parameters()).device
        self.by_name = {name: found for found, name in _named(model)}

    def value(self, present: Any, node: Node) -> Any:
        """What an encoded value is, given what is there: the same object, changed in place, where that can be."""
        if "plain" in node:
            return _as_type_of(present, node["plain"])
        if "tensor_values" in node:
            return self._tensor(present, node)
        if "generator" in node:
            return self._generator(present, node["generator"])
        if "keys" in node:
            return self._mapping(present, node)
        if "items" in node:
            return self._sequence(present, node["items"])
        if "attributes" in node and present is not None:
            self._object(present, node["attributes"])
        return present

    def _tensor(self, present: Any, node: Node) -> Tensor:
        values: Tensor = node["tensor_values"]
        if isinstance(present, Tensor) and present.shape == values.shape and present.dtype == values.dtype:
            self.write_rows(present, values)
            return present
        return values.to("cpu" if node["device"] == "cpu" else self.device, copy=True)

    def _generator(self, present: Any, state: Tensor) -> torch.Generator:
        generator = present if isinstance(present, torch.Generator) else torch.Generator()
        generator.set_state(state)
        return generator

    def _sequence(self, present: Any, nodes: Mapping[str, Node]) -> Any:
        there = list(present) if isinstance(present, list | tuple | deque) else []
        for number in range(len(there), len(nodes)):
            if not _can_be_made(nodes[str(number)]):
                return present
        there = there[: len(nodes)] + [None] * (len(nodes) - len(there))
        values = []
        for number, before in enumerate(there):
            values.append(self.value(before, nodes[str(number)]))
        if isinstance(present, list | deque):
            present.clear()
            present.extend(values)
            return present
        if isinstance(present, tuple):
            make = getattr(type(present), "_make", type(present))
            return make(values)
        return values

    def _mapping(self, present: Any, node: Node) -> Any:
        there = dict(present) if isinstance(present, Mapping) else {}
        values = {}
        for number, encoded in enumerate(node["keys"]):
            inner = node["items"][str(number)]
            key = self._key(encoded, list(there), number)
            if key in there or (key is not None and _can_be_made(inner)):
                values[key] = self.value(there.get(key), inner)
        if not isinstance(present, MutableMapping):
            return values
        for key in there.keys() - values.keys():
            del present[key]
        # one by one: a module's mappings take what is there already, and keep their order
        for key, value in values.items():
            if value is not there.get(key):
                present[key] = value
        return present

    def _key(self, encoded: Mapping[str, Any], there: Sequence[Any], number: int) -> Any:
        if "plain" in encoded:
            return encoded["plain"]
        if "tuple" in encoded:
            return tuple(encoded["tuple"])
        if "name" in encoded:
            return self.by_name[encoded["name"]]
        # an object that has no name stands where it stood
        return there[number] if number < len(there) else None

    def _object(self, present: Any, nodes: Mapping[str, Node]) -> None:
        for name, node in nodes.items():
            before = getattr(present, name, None)
            after = self.value(before, node)
            if after is not before:
                # also of a frozen dataclass
                object.__setattr__(present, name, after)


def _attributes(value: Any) -> Iterator[str]:
    """The names of an object's attributes that its steps may change."""
    if isinstance(value, (Context, BaseModel, *_FUNCTIONS)):
        return
    if isinstance(value, nn.Module):
        # of a library's module its tensors alone; of one of a method's own also what else it holds
        yield from _CONTAINERS
        if _is_foreign(value):
            return
        yield from (name for name in vars(value) if name not in _OF_ANY_MODULE)
    elif not _is_foreign(value):
        of_a_step = getattr(value, "of_a_step", ())
        yield from (name for name in getattr(value, "__dict__", ()) if name not in of_a_step)


def _is_foreign(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] in _FOREIGN


def _is_plain(value: Any) -> bool:
    """Whether JSON gives a value back as it is."""
    if value is None or isinstance(value, bool | int | float | str):
        return True
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(isinstance(key, str) for key in value) and all(map(_is_plain, value.values()))
    return False


def _can_be_made(node: Node) -> bool:
    """Whether a value can be put where there is nothing."""
    if "items" in node:
        return all(map(_can_be_made, node["items"].values()))
    return bool(node) and "attributes" not in node


def _as_type_of(present: Any, value: Any) -> Any:
    """A plain value; as a set, or in the list or mapping that is there, where there is one."""
    if isinstance(present, set | frozenset) and isinstance(value, list):
        return type(present)(value)
    if isinstance(present, list) and isinstance(value, list):
        present[:] = value
        return present
    if type(present) is dict and isinstance(value, dict):
        present.clear()
        present.update(value)
        return present
    return value


def _encoded_key(key: Any, names: Mapping[int, str]) -> Mapping[str, Any]:
    if _is_plain(key):
        return {"plain": key}
    if isinstance(key, tuple) and _is_plain(list(key)):
        return {"tuple": list(key)}
    if id(key) in names:
        return {"name": names[id(key)]}
    return {}


def _named(model: nn.Module) -> Iterator[tuple[Any, str]]:
    """The model's modules and parameters, each with a name that no other has."""
    for name, module in model.named_modules():
        yield module, f"module {name}"
    for name, parameter in model.named_parameters():
        yield parameter, f"parameter {name}"


def _names(model: nn.Module) -> dict[int, str]:
    names = {}
    for found, name in _named(model):
        names[id(found)] = name
    return names


def _storage(tensor: Tensor) -> int:
    """Where the memory of a tensor begins; of a sharded one, of this worker's part."""
    local = getattr(tensor, "_local_tensor", tensor)
    if local.numel() == 0:
        # all empty tensors begin at 0
        return id(tensor)
    return local.untyped_storage().data_ptr()


def _version(tensor: Tensor) -> int | None:
    """How often a tensor was written to; None where torch does not count it."""
    return None if tensor.is_inference() else tensor._version
