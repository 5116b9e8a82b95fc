"""What keeps facts whole: files that appear complete or not at all, and JSON lines that carry a checksum.

A line's checksum is the object's last field, `"crc"`, so that it stays plain JSON for `cat` and `jq`. CRC-32 finds every
single flipped bit and every burst of up to 32 bits; against a person who edits a file on purpose it protects nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from orchestrator.storage.places import is_local

if TYPE_CHECKING:
    from orchestrator.storage.objects import ObjectPath

_FIELD = b', "crc": "'
_END = b'"}'
_DIGITS = 8
_COMMENT = b"# crc: "
_SEAL_LENGTH = len(_FIELD) + _DIGITS + len(_END) + 1


def seal(values: Mapping[str, Any]) -> bytes:
    """The JSON object of some values, on one line, with the checksum of all its bytes."""
    content = json.dumps(values).encode()
    # the field is put into the bytes: encoding the object anew could give others than those that were summed
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
    # as text, or `json` looks first which encoding it is
    values: dict[str, Any] = json.loads(content.decode("ascii"))
    return values


def unseal_file(content: bytes) -> dict[str, Any]:
    """The values of a file that is one sealed object, or of one from before such files were sealed. Raises ValueError."""
    # those had a field on each line, which no damage makes of a sealed one
    if content[:2] == b"{\n":
        values: dict[str, Any] = json.loads(content)
        return values
    return unseal(content)


def seal_text(text: str) -> bytes:
    """A text with a last line that has its checksum, and is a comment in YAML."""
    content = text.encode()
    return content + _COMMENT + _checksum(content) + b"\n"


def unseal_text(content: bytes) -> str:
    """The text that `seal_text` was given. Raises ValueError where the bytes are no longer the same."""
    text, comment, ending = content.rpartition(_COMMENT)
    if not comment:
        raise ValueError("no checksum at its end")
    if ending != _checksum(text) + b"\n":
        raise ValueError("its checksum does not match")
    return text.decode()


def is_sound(line: bytes) -> bool:
    """Whether a whole line, with its end, is as `seal` wrote it; `unseal` says the same and more, and takes longer."""
    content = line[:-_SEAL_LENGTH]
    return line[-_SEAL_LENGTH:] == _FIELD + _checksum(content + b"}") + _END + b"\n"


def _checksum(content: bytes) -> bytes:
    return b"%08x" % zlib.crc32(content)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under another name first, and give it its own when all bytes are on the disk."""
    if not is_local(path):
        # an object appears whole or not at all
        path.write_bytes(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # a name of its own: two processes may write the same file at once
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with unfinished.open("wb") as stream:
        stream.write(content)
        stream.flush()
        # a rename may reach the disk before the bytes do, which would leave an empty file under the final name
        os.fsync(stream.fileno())
    # One step, since both names are in one folder. The folder itself is not synced: after a crash the file is there
    # or is not, and either is whole.
    unfinished.rename(path)


def sync_files(folder: Path) -> None:
    """Wait until the bytes of every file of a folder are on the disk; objects are kept when they are put."""
    if not is_local(folder):
        return
    for file in folder.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    if not is_local(path):
        digest = hashlib.sha256()
        for piece in cast("ObjectPath", path).pieces():
            digest.update(piece)
        return digest.hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
