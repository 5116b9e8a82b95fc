"""JSON objects that carry a checksum, so that a damaged one is noticed instead of believed.

The checksum is the object's last field, `"crc"`: a line stays plain JSON for `cat` and `jq`. CRC-32 finds every single flipped
bit and every burst of up to 32 bits; against a person who edits a file on purpose it protects nothing.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

_FIELD = b', "crc": "'
_END = b'"}'
_DIGITS = 8


def seal(values: Mapping[str, Any]) -> bytes:
    """The JSON object of some values, on one line, with the checksum of all its bytes."""
    content = json.dumps(values).encode()
    return content[:-1] + _FIELD + _checksum(content) + _END


def unseal(line: bytes) -> dict[str, Any]:
    """The values that `seal` wrote. Raises ValueError where the bytes are no longer the same."""
    content, field, ending = line.rstrip(b"\n").rpartition(_FIELD)
    if not field or len(ending) != _DIGITS + len(_END):
        raise ValueError("no checksum at its end")
    content += b"}"
    # the digits are compared as they were written: int() would take an "A" that was an "a"
    if ending != _checksum(content) + _END:
        raise ValueError("its checksum does not match")
    values: dict[str, Any] = json.loads(content)
    return values


def _checksum(content: bytes) -> bytes:
    return f"{zlib.crc32(content):08x}".encode()
