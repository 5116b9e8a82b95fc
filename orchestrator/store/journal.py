"""The journal of a sequence or of a search: every fact, appended as it happens.

A journal is a folder of JSON-lines files, one a writer ("train": the first training worker; "evaluate": scores that were
computed elsewhere), so no two processes append to one file. Everything else (screen, MLflow, report) is read from it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.redaction import redacted_values
from orchestrator.storage.lines import Segments, files_of_lines, opened_at
from orchestrator.storage.places import folder_at, is_local
from orchestrator.store.events import PointScored, Step, SystemSample, parse_event
from orchestrator.store.integrity import is_sound, seal, unseal
from orchestrator.store.records.event import Event

logger = logging.getLogger(__name__)

# Lines of steps, of points and of the processor need not each wait for the disk: the next event that is synced takes them along
UNSYNCED = (Step, PointScored, SystemSample)


# A step's line with exactly the fields that it has today, as `Journal` writes them
_STEP = re.compile(
    rb'\{"event": "step", "time": \d+, "task_id": (\d+), "step": (\d+), "loss": [^,"]+, "lr": [^,"]+, '
    rb'"grad_norm": [^,"]+, "tokens_per_s": [^,"]+, "crc": "\w{8}"\}\n'
)


def journal_folder(out: str | Path, sequence_id: str) -> Path:
    """Where a sequence's journal is."""
    return folder_at(out) / "sequences" / sequence_id


@dataclass
class Journal:
    """Appends events to one writer's file; each is on disk when `append` returns, a step's one soon after."""

    folder: Path
    writer: str = "train"
    _segments: Segments | None = field(default=None, init=False, repr=False)

    def append(self, event: Event) -> None:
        """Write one event."""
        self.append_all([event])

    def append_all(self, events: Sequence[Event]) -> None:
        """Write events in their order, and wait for the disk once for all of them."""
        lines = b"".join(map(_line, events))
        at_once = not all(isinstance(event, UNSYNCED) for event in events)
        if not is_local(self.folder):
            self._segments = self._segments or Segments(self.folder, self.writer)
            self._segments.append(lines, at_once)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.writer}.jsonl"
        # opened for each call: a journal has nothing to close, and no handle that a forked process would share
        with path.open("ab+") as stream:
            if stream.tell() > 0:
                stream.seek(-1, os.SEEK_END)
                # a line that a crash tore must not swallow this one
                if stream.read(1) != b"\n":
                    lines = b"\n" + lines
            # one write of whole lines: a reader never sees the half of an event as a line of its own
            stream.write(lines)
            stream.flush()
            if at_once:
                os.fsync(stream.fileno())


def _line(event: Event) -> bytes:
    """An event as it is written. All else is read from journals, so what is redacted here stands nowhere."""
    values = event.to_json()
    # the many others have numbers, and names of tasks
    if not isinstance(event, UNSYNCED):
        values = redacted_values(values)
    return seal(values) + b"\n"


class ThreadedJournal(Journal):
    """A journal whose steps are written by a thread, many at a time where the storage is slow: training waits for none.

    An event that is synced waits for the steps before it, so that the order of the file is that of the facts. Steps that a
    dying process had not written yet are of a task that is trained again.
    """

    def __init__(self, folder: Path, writer: str = "train") -> None:
        super().__init__(folder, writer)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._lock = threading.Lock()
        self._waiting: list[Event] = []
        # the thread's work, which goes on for as long as anything waits
        self._writing: Future[None] | None = None

    def append_all(self, events: Sequence[Event]) -> None:
        """Hand steps to the thread; write other events. Raises what the writing of earlier steps raised."""
        if not all(isinstance(event, UNSYNCED) for event in events):
            self.flush()
            super().append_all(events)
            return
        with self._lock:
            self._waiting.extend(events)
            if self._writing is None:
                self._writing = self._thread.submit(self._write_waiting)
                return
            failed = self._writing.done()
        if failed:
            self.flush()

    def flush(self) -> None:
        """Wait until all that was handed over is written. Raises what its writing raised."""
        with self._lock:
            writing = self._writing
        if writing is None:
            return
        try:
            writing.result()
        finally:
            with self._lock:
                self._writing = None

    def _write_waiting(self) -> None:
        while True:
            with self._lock:
                events = self._waiting
                self._waiting = []
                if not events:
                    self._writing = None
                    return
            super().append_all(events)


def step_numbers(line: bytes) -> tuple[int, int] | None:
    """(task id, step) of a step's line; None for any other line, and for one that is damaged."""
    match = _STEP.fullmatch(line)
    if match is None or not is_sound(line):
        return None
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class DamagedLine:
    """A line of a journal that was left out: where it is, and why it is not believed."""

    file: Path
    number: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.number}: {self.reason}"


def damage_line(damaged: Sequence[DamagedLine]) -> str:
    """One line on the lines that were left out: how many, and the first of them."""
    return f"{len(damaged)} damaged line(s) of the journals left out, recovered from the store where it can tell: {damaged[0]}"


@dataclass
class Tail:
    """Reads a journal from where it last stopped. A line that is not what was written is left out and kept in `damaged`."""

    folder: Path
    damaged: list[DamagedLine] = field(default_factory=list)
    # in bytes, by file: files only grow, so nothing is ever read twice
    offsets: dict[str, int] = field(default_factory=dict)
    line_counts: dict[str, int] = field(default_factory=dict)

    def has_news(self) -> bool:
        """Whether a file is longer than what was read of it."""
        return any(size > self.offsets.get(path.name, 0) for path, size in self._sizes())

    def num_bytes(self) -> int:
        """How long its files are together."""
        return sum(size for _, size in self._sizes())

    def new_events(self) -> Iterator[Event]:
        """Events since the last call, in each writer's order; an unfinished line waits for the next call."""
        for path, line in self.new_lines():
            event = self.parse(path, line)
            if event is not None:
                yield event

    def new_lines(self) -> Iterator[tuple[Path, bytes]]:
        """The lines of those events, each with its file."""
        for path, end in self._sizes():
            offset = self.offsets.get(path.name, 0)
            # most files of most journals have nothing new at most looks: they are not even opened
            if end <= offset:
                continue
            name = path.name
            with opened_at(path, offset) as stream:
                for line in stream:
                    # its writer is at it this moment: the offset stays before it
                    if not line.endswith(b"\n"):
                        break
                    self._take(name, line)
                    yield path, line
                    # what was written since the sizes were taken may be of a later fact than another file's lines
                    if self.offsets[name] >= end:
                        break

    def _sizes(self) -> list[tuple[Path, int]]:
        """The journal's files, the training's first, with their sizes.

        A score is written after the fact that its state exists, by another writer: no score ever comes before its state.
        """
        return files_of_lines(self.folder, first="train")

    def _take(self, name: str, line: bytes) -> None:
        """Note that a line was read."""
        self.offsets[name] = self.offsets.get(name, 0) + len(line)
        self.line_counts[name] = self.line_counts.get(name, 0) + 1

    def parse(self, path: Path, line: bytes) -> Event | None:
        """The event of the line that was read last of its file; None where it is damaged."""
        try:
            return parse_event(unseal(line))
        except ValueError as error:
            damaged = DamagedLine(path, self.line_counts[path.name], str(error))
        self.damaged.append(damaged)
        logger.info("left out of the journal: %s", damaged)
        return None


Digest = tuple[int, str]


@dataclass
class ResumableTail(Tail):
    """A tail that another process can go on from: it knows the hash of what it has read of each file."""

    hashes: dict[str, hashlib._Hash] = field(default_factory=dict)

    def digests(self) -> dict[str, Digest]:
        """What was read of each file: the number of bytes, and their SHA-256."""
        digests: dict[str, Digest] = {}
        for name, offset in self.offsets.items():
            digests[name] = (offset, self.hashes[name].hexdigest())
        return digests

    def go_on_from(self, digests: Mapping[str, Digest]) -> bool:
        """Take what another one read for read; False, and nothing done, where the files no longer begin with it.

        So a journal that was cut, mended or replaced is known from one that has only grown.
        """
        hashes: dict[str, hashlib._Hash] = {}
        counts: dict[str, int] = {}
        for name, (offset, sha256) in digests.items():
            try:
                with opened_at(self.folder / name, 0) as stream:
                    content = stream.read(offset)
            except FileNotFoundError:
                return False
            hashes[name] = hashlib.sha256(content)
            counts[name] = content.count(b"\n")
            if hashes[name].hexdigest() != sha256:
                return False
        self.hashes = hashes
        self.line_counts = counts
        self.offsets = {name: offset for name, (offset, _) in digests.items()}
        return True

    def old_events(self) -> Iterator[Event]:
        """The events of what was taken for read."""
        again = Tail(self.folder)
        for path, line in again.new_lines():
            if again.offsets[path.name] > self.offsets.get(path.name, 0):
                continue
            event = again.parse(path, line)
            if event is not None:
                yield event

    def _take(self, name: str, line: bytes) -> None:
        super()._take(name, line)
        if name not in self.hashes:
            self.hashes[name] = hashlib.sha256()
        self.hashes[name].update(line)
