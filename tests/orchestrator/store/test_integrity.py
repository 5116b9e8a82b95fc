"""Integrity: files appear whole, and no flipped bit is taken for what was written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.store.integrity import seal, unseal, write_whole

VALUES = {"event": "step", "loss": 0.1, "text": 'é, "crc": "00000000"', "list": [1, None]}


def test_it_comes_back_and_is_plain_json() -> None:
    assert unseal(seal(VALUES)) == VALUES
    plain = json.loads(seal(VALUES))
    assert plain.pop("crc") == "aa64874f"
    assert plain == VALUES


def test_every_single_flipped_bit_is_noticed() -> None:
    line = seal(VALUES)
    for position in range(len(line)):
        for bit in range(8):
            changed = bytearray(line)
            changed[position] ^= 1 << bit
            with pytest.raises(ValueError, match="checksum"):
                unseal(bytes(changed))


def test_a_cut_is_noticed() -> None:
    line = seal(VALUES)
    for length in range(len(line)):
        with pytest.raises(ValueError, match="checksum"):
            unseal(line[:length])


def test_a_file_replaces_the_one_before_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "new" / "file"
    write_whole(file, b"one")
    write_whole(file, b"two")
    assert file.read_bytes() == b"two"
    assert [p.name for p in file.parent.iterdir()] == ["file"]
