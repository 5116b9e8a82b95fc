"""Files that are hashed while they are written, among them safetensors.

A state's bytes go through the processor once: reading them again for their hash would take as long as writing them. The hash
is thus of what was meant to be written, so that a disk that kept something else is found out when the state is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load, load_file
from torch import Tensor

from orchestrator.storage.places import is_local

if TYPE_CHECKING:
    from orchestrator.storage.objects import ObjectPath

# Large enough that hashing and writing leave Python's lock to training, small enough to stay in the processor's cache
CHUNK = 1 << 20

# The names of element types in the format, in the order in which the library writes tensors: wide elements first, so that
# each tensor begins at a multiple of its element's width. https://huggingface.co/docs/safetensors
_NAMES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ORDER = list(_NAMES)
_ALIGNMENT = 8


@dataclass(frozen=True)
class WrittenFile:
    """What a manifest says of a file."""

    sha256: str
    bytes: int

    def entry(self) -> dict[str, Any]:
        """It as a manifest's plain values."""
        return {"sha256": self.sha256, "bytes": self.bytes}


def write_bytes(path: Path, parts: Iterable[bytes | memoryview]) -> WrittenFile:
    """Write the parts of a file one after the other. They are on the disk when the file is synced."""
    digest = hashlib.sha256()
    size = 0
    # unbuffered: the chunks are large, and a buffer would only copy them
    with path.open("wb", buffering=0) as stream:
        for part in parts:
            for chunk in _chunks(memoryview(part)):
                digest.update(chunk)
                _write_all(stream, chunk)
                size += len(chunk)
    return WrittenFile(digest.hexdigest(), size)


def digest_bytes(parts: Iterable[bytes | memoryview]) -> WrittenFile:
    """What would be said of a file with these parts; nothing is written."""
    digest = hashlib.sha256()
    size = 0
    for part in parts:
        digest.update(part)
        size += len(part)
    return WrittenFile(digest.hexdigest(), size)


def _write_all(stream: Any, chunk: memoryview) -> None:
    # an unbuffered file may take less than it is given, as a disk does that is nearly full
    while chunk:
        chunk = chunk[stream.write(chunk) :]


def _chunks(part: memoryview) -> Iterable[memoryview]:
    for start in range(0, len(part), CHUNK):
        yield part[start : start + CHUNK]


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> WrittenFile:
    """Write contiguous tensors on the CPU as safetensors, byte for byte what `safetensors.torch.save_file` writes."""
    return write_bytes(path, tensor_parts(tensors))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file."""
    if is_local(path):
        return load_file(path)
    # not by way of a file on this machine: it would be written and read once more for nothing
    return load(cast("ObjectPath", path).read_large())


def tensor_parts(tensors: Mapping[str, Tensor]) -> Iterable[bytes | memoryview]:
    """The bytes of a safetensors file, a part a tensor, none of them copied."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise TypeError(f"tensor {name!r} has elements of type {tensor.dtype}, which safetensors does not know")
    names = sorted(tensors, key=lambda name: (_ORDER.index(tensors[name].dtype), name))
    header: dict[str, Any] = {}
    end = 0
    for name in names:
        tensor = tensors[name]
        begin = end
        end += tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        yield raw_bytes(tensors[name])


def raw_bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU, not copied."""
    # as bytes first: numpy has no bfloat16
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data
