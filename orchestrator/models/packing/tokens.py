"""The token ids of a corpus, packed without padding into a file that is mapped into memory and never read as a whole.

Documents are tokenised one after the other, each followed by the tokenizer's end, and the stream that they make is cut into
blocks of one length; only the last is shorter. No token is lost, and none is in two blocks.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

CACHE_VARIABLE = "CL_PACKED_DIR"
# In every key: a file in another layout is made again instead of misread
FORMAT = 1

# What is tokenised at once: of longer batches nothing gets faster, and tokenizers take a hundred bytes for each token
BATCH_LETTERS = 2**18


def cache_folder() -> Path:
    """Where packed corpora lie, of all experiments on this machine: the variable CL_PACKED_DIR, or a folder of the user's."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    return Path.home() / ".cache" / "continual-orchestrator" / "packed"


@dataclass(frozen=True)
class PackedTokens:
    """A packed corpus: blocks of `length` token ids. `key` names its content."""

    key: str
    folder: Path
    length: int
    dtype: str
    num_tokens: int

    @cached_property
    def ids(self) -> NDArray[Any]:
        """All token ids. What of them is in memory are the pages that were read, which the system may drop."""
        return np.memmap(self.folder / "tokens.bin", dtype=self.dtype, mode="r", shape=(self.num_tokens,))

    @cached_property
    def block_bytes(self) -> NDArray[np.int64]:
        """The bytes of text of each block: of a document that is cut, in proportion to its tokens. Their sum is exact."""
        bytes_of: NDArray[np.int64] = np.load(self.folder / "block_bytes.npy")
        return bytes_of

    def __len__(self) -> int:
        return -(-self.num_tokens // self.length)

    @cached_property
    def block_crc(self) -> NDArray[np.uint32]:
        """The CRC-32 of each block's bytes."""
        crc_of: NDArray[np.uint32] = np.load(self.folder / "block_crc.npy")
        return crc_of

    def block(self, index: int) -> NDArray[Any]:
        """The token ids of a block. Raises ValueError where they are not what was packed."""
        ids = self.ids[index * self.length : (index + 1) * self.length]
        # looked at as it is read: to read all of it at first would take as long as training on it
        if zlib.crc32(ids.tobytes()) != self.block_crc[index]:
            raise ValueError(f"{self.folder}: damaged at block {index}; delete this folder, and it is packed anew")
        return ids

    def before(self, index: int) -> int | None:
        """The token before a block; None before the first."""
        if index == 0:
            return None
        return int(self.block(index - 1)[-1])


class Packer:
    """Packs corpora for one tokenizer into blocks of `length`; what was packed before, by whomever, is found again."""

    def __init__(self, tokenizer: Any, end: int, length: int) -> None:
        self.tokenizer = tokenizer
        self.end = end
        self.length = length

    @cached_property
    def identity(self) -> str:
        """A name for what the tokenizer makes of a text."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            described: Any = sorted(self.tokenizer.get_vocab().items())
        else:
            described = json.loads(backend.to_str())
            # how the last texts were padded and cut, which those of a corpus are not
            described.pop("truncation")
            described.pop("padding")
        return _hash(type(self.tokenizer).__name__, described, self.end)

    def packed(self, content_hash: str, documents: Callable[[], Iterable[str]]) -> PackedTokens:
        """The packed corpus of that content, which `documents` streams where nobody has packed it yet."""
        key = _hash(FORMAT, content_hash, self.identity, self.length)
        folder = cache_folder() / key
        found = _open(key, folder)
        if found is None:
            try:
                found = self._make_once(key, folder, documents)
            except OSError as error:
                reason = error.strerror or str(error)
                raise ValueError(
                    f"packed corpora cannot be written to {str(folder.parent)!r}: {reason}; {CACHE_VARIABLE} names another folder"
                ) from error
        return found

    def _make_once(self, key: str, folder: Path, documents: Callable[[], Iterable[str]]) -> PackedTokens:
        """Pack a corpus, or wait for who does so now."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        # one process of a machine does the work for those that wait; where locks are not shared, each does it
        with FileLock(folder.parent / f"{key}.lock"):
            found = _open(key, folder)
            if found is None:
                self._make(folder, documents)
                found = _open(key, folder)
        assert found is not None
        return found

    def _make(self, folder: Path, documents: Callable[[], Iterable[str]]) -> None:
        """Write a packed corpus aside, and give it its name when it is whole."""
        aside = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
        aside.mkdir()
        try:
            self._write(aside, documents())
            # what lies there is not whole, or else it would have been found
            if folder.exists() and _open(folder.name, folder) is None:
                shutil.rmtree(folder)
            try:
                aside.rename(folder)
            except OSError:
                # another machine was first, and made the same
                if not folder.exists():
                    raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _write(self, folder: Path, documents: Iterable[str]) -> None:
        dtype = "uint16" if len(self.tokenizer) <= 2**16 else "uint32"
        cuts = _Cuts(self.length)
        with (folder / "tokens.bin").open("wb") as file:
            for texts in _batches(documents):
                self._append(file, dtype, texts, cuts)
        np.save(folder / "block_bytes.npy", cuts.block_bytes())
        np.save(folder / "block_crc.npy", _crc_of_blocks(folder / "tokens.bin", self.length * np.dtype(dtype).itemsize))
        described = {"dtype": dtype, "length": self.length, "num_tokens": cuts.num_tokens, "files": _digests(folder)}
        (folder / "about.json").write_text(json.dumps({**described, "hash": _hash(described)}))

    def _append(self, file: BinaryIO, dtype: str, texts: Sequence[str], cuts: _Cuts) -> None:
        # without what the tokenizer puts around a text, and of any length
        encoded = self.tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
        ids: list[int] = []
        for text, of_text in zip(texts, encoded["input_ids"], strict=True):
            ids.extend(of_text)
            ids.append(self.end)
            cuts.add(len(of_text), len(text.encode()))
        np.array(ids, dtype=dtype).tofile(file)


class _Cuts:
    """Counts the bytes of text before each cut between two blocks, while documents go by."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.num_tokens = 0
        self.num_bytes = 0
        self.before: list[int] = [0]

    def add(self, num_tokens: int, num_bytes: int) -> None:
        """Take a document, whose end is one token more."""
        while len(self.before) * self.length <= self.num_tokens + num_tokens:
            inside = len(self.before) * self.length - self.num_tokens
            self.before.append(self.num_bytes + num_bytes * inside // max(num_tokens, 1))
        self.num_tokens += num_tokens + 1
        self.num_bytes += num_bytes

    def block_bytes(self) -> NDArray[np.int64]:
        """The bytes of each block."""
        num_blocks = -(-self.num_tokens // self.length)
        up_to = np.array([*self.before[:num_blocks], self.num_bytes], dtype=np.int64)
        return up_to[1:] - up_to[:-1]


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    """The documents in batches of about `BATCH_LETTERS`."""
    batch: list[str] = []
    num_letters = 0
    for document in documents:
        batch.append(document)
        num_letters += len(document)
        if num_letters >= BATCH_LETTERS:
            yield batch
            batch = []
            num_letters = 0
    if batch:
        yield batch


def _crc_of_blocks(file: Path, size: int) -> NDArray[np.uint32]:
    """The CRC-32 of each block of so many bytes."""
    found = []
    with file.open("rb") as stream:
        while block := stream.read(size):
            found.append(zlib.crc32(block))
    return np.array(found, dtype=np.uint32)


def _digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of the small files of a packed corpus, which say by block what the large one holds."""
    digests = {}
    for name in ("block_bytes.npy", "block_crc.npy"):
        digests[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return digests


def _open(key: str, folder: Path) -> PackedTokens | None:
    """The packed corpus in a folder; None where there is none that is whole."""
    try:
        about = json.loads((folder / "about.json").read_text())
        size = (folder / "tokens.bin").stat().st_size
        is_sound = about.pop("hash") == _hash(about) and about["files"] == _digests(folder)
    # not there, damaged, or from before a block had a checksum: it is packed anew
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    if not is_sound:
        return None
    packed = PackedTokens(key, folder, about["length"], about["dtype"], about["num_tokens"])
    # a copy that was broken off
    if size != packed.num_tokens * np.dtype(packed.dtype).itemsize:
        return None
    return packed


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
