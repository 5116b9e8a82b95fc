"""Files that are hashed while they are written: the library's own bytes, and the hash of what lies there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from orchestrator.store.states import tensor_files
from orchestrator.store.states.tensor_files import raw_bytes, write_bytes, write_tensors

TYPES = [
    torch.bool, torch.uint8, torch.int8, torch.float8_e5m2, torch.float8_e4m3fn, torch.int16, torch.uint16, torch.float16,
    torch.bfloat16, torch.int32, torch.uint32, torch.float32, torch.complex64, torch.float64, torch.int64, torch.uint64,
]  # fmt: skip


def every_type() -> dict[str, Tensor]:
    """A tensor of each element type with bits of all kinds, named so that no order of names is that of types."""
    rng = torch.Generator().manual_seed(0)
    tensors = {"é/scalar": torch.tensor(1.5), "none": torch.zeros(0, 3), "b.weight": torch.randn(3, 5, generator=rng)}
    for number, dtype in enumerate(TYPES):
        width = torch.zeros(0, dtype=dtype).element_size()
        # a boolean has one bit
        bits = torch.randint(0, 2 if dtype == torch.bool else 256, (7 * width,), generator=rng, dtype=torch.uint8)
        tensors[f"{chr(122 - number)}.{dtype}"] = bits.view(dtype)
    return tensors


@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_the_bytes_are_those_of_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(tensor_files, "CHUNK", chunk)
    for name, tensors in (("all", every_type()), ("none", {})):
        written = write_tensors(tmp_path / name, tensors)
        save_file(tensors, tmp_path / "library")
        expected = (tmp_path / "library").read_bytes()
        assert (tmp_path / name).read_bytes() == expected
        assert written.entry() == {"sha256": hashlib.sha256(expected).hexdigest(), "bytes": len(expected)}


def test_a_disk_that_takes_a_part_at_a_time_gets_all(tmp_path: Path) -> None:
    class Slow:
        """A stream that takes two bytes of what it is given."""

        def __init__(self) -> None:
            self.taken = b""

        def write(self, content: memoryview) -> int:
            self.taken += bytes(content[:2])
            return min(2, len(content))

    stream = Slow()
    tensor_files._write_all(stream, memoryview(b"abcde"))
    assert stream.taken == b"abcde"


def test_a_full_disk_is_an_error() -> None:
    with pytest.raises(OSError, match="No space left"):
        write_bytes(Path("/dev/full"), [b"x"])


def test_the_raw_bytes_are_the_memory_itself() -> None:
    tensor = torch.zeros(2, 2, dtype=torch.bfloat16)
    view = raw_bytes(tensor)
    tensor[1, 1] = 1.0
    # 1.0 is 0x3f80, the low byte first
    assert bytes(view) == bytes(6) + b"\x80\x3f"
