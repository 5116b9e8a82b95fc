"""Files of lines that grow: one a writer on a disk; in an object store, which knows no appending, a row of objects.

A writer's objects are `<writer>.000001.jsonl` and on. The last is put again with each line that is added, until it is so large
that a next one begins: a reader finds that objects only grow, as files do, and has few to ask for.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast

from orchestrator.storage import fence
from orchestrator.storage.places import is_local

if TYPE_CHECKING:
    from orchestrator.storage.objects import ObjectPath

SEGMENT_BYTES = 256 * 1024
# Lines that need not be kept at once wait for so long, at most, for others to come along in their request
SECONDS_TOGETHER = 5.0


class Segments:
    """The objects that one writer adds lines to, from a new one on: those of earlier processes stay as they are."""

    def __init__(self, folder: Path, writer: str) -> None:
        self.folder = cast("ObjectPath", folder)
        self.writer = writer
        self._number = 0
        self._content = b""
        self._waiting = b""
        self._last_put = 0.0

    def append(self, lines: bytes, at_once: bool) -> None:
        """Add whole lines; with `at_once`, they are in the store when this returns."""
        self._waiting += lines
        if not at_once and time.monotonic() - self._last_put < SECONDS_TOGETHER:
            return
        if self._number == 0 or len(self._content) > SEGMENT_BYTES:
            self._begin_next()
        else:
            content = self._content + self._waiting
            self._path(self._number).write_bytes(content)
            self._content = content
        # only now: where the store failed, the lines still wait
        self._waiting = b""
        self._last_put = time.monotonic()

    def _begin_next(self) -> None:
        """Put what waits as an object of its own."""
        fence.check()
        number = (self._number or self._last_number()) + 1
        # never over another one: a process that is thought dead may still write
        while self._path(number).put_if(self._waiting, None) is None:
            number += 1
        self._number = number
        self._content = self._waiting

    def _last_number(self) -> int:
        last = 0
        for name in self.folder.listed():
            writer, _, number = name.removesuffix(".jsonl").rpartition(".")
            if writer == self.writer and number.isdigit():
                last = max(last, int(number))
        return last

    def _path(self, number: int) -> ObjectPath:
        return self.folder / f"{self.writer}.{number:06d}.jsonl"


def files_of_lines(folder: Path, first: str) -> list[tuple[Path, int]]:
    """The files of lines in a folder with their sizes, those of the writer `first` first.

    What the others wrote may follow from what `first` wrote before. So its size is never older than theirs.
    """
    if not is_local(folder):
        # one look at all of them
        sizes = cast("ObjectPath", folder).listed()
        names = [name for name in sizes if name.endswith(".jsonl") and "/" not in name]
        names.sort(key=lambda name: (not name.startswith(f"{first}."), name))
        return [(folder / name, sizes[name]) for name in names]
    paths = sorted(folder.glob("*.jsonl"), key=lambda path: path.stem == first)
    taken = [(path, path.stat().st_size) for path in paths]
    return taken[::-1]


def opened_at(path: Path, offset: int) -> IO[bytes]:
    """A file, open for reading from a byte on that is there."""
    if not is_local(path):
        return io.BytesIO(cast("ObjectPath", path).read_from(offset))
    stream = path.open("rb")
    stream.seek(offset)
    return stream


def has_lines_of(folder: Path, writer: str) -> bool:
    """Whether a writer has a file in a folder."""
    if is_local(folder):
        return (folder / f"{writer}.jsonl").exists()
    return any(name.startswith(f"{writer}.") for name in cast("ObjectPath", folder).listed())


@contextlib.contextmanager
def appended(path: Path, mode: Literal["a", "ab"] = "a") -> Iterator[Any]:
    """A file to append to. To an object, what was written is added when the block ends: only one process may do so."""
    if is_local(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode) as stream:
            yield stream
        return
    # a real file: crashes are written into it past Python's own buffers
    with tempfile.TemporaryDirectory() as folder:
        added = Path(folder) / path.name
        try:
            with added.open(mode) as stream:
                yield stream
        finally:
            before = b""
            with contextlib.suppress(FileNotFoundError):
                before = path.read_bytes()
            path.write_bytes(before + added.read_bytes())
