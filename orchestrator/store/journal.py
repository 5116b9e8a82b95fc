"""The journal of a sequence or of a search: every fact, appended as it happens.

A journal is a folder of JSON-lines files, one a writer ("train": the first training worker; "evaluate": scores that were
computed elsewhere), so no two processes append to one file. Everything else (screen, MLflow, report) is read from it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.store.events import Event, Step, SystemSample, parse_event
from orchestrator.store.integrity import seal, unseal

logger = logging.getLogger(__name__)

# A step's and the processor's lines need not each wait for the disk: the next event that is synced takes them along
UNSYNCED = (Step, SystemSample)


def journal_folder(out: str | Path, sequence_id: str) -> Path:
    """Where a sequence's journal is."""
    return Path(out) / "sequences" / sequence_id


@dataclass
class Journal:
    """Appends events to one writer's file; each is on disk when `append` returns, a step's one soon after."""

    folder: Path
    writer: str = "train"

    def append(self, event: Event) -> None:
        """Write one event."""
        self.append_all([event])

    def append_all(self, events: Sequence[Event]) -> None:
        """Write events in their order, and wait for the disk once for all of them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.writer}.jsonl"
        lines = b"".join(seal(event.to_json()) + b"\n" for event in events)
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
            if not all(isinstance(event, UNSYNCED) for event in events):
                os.fsync(stream.fileno())


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

    def new_events(self) -> Iterator[Event]:
        """Events since the last call, in each writer's order; an unfinished line waits for the next call.

        A score is written after the fact that its state exists, by another writer. So the training's file is read last and
        given first: no score ever comes before its state.
        """
        paths = sorted(self.folder.glob("*.jsonl"), key=lambda path: path.stem == "train")
        new_lines: list[tuple[Path, list[bytes]]] = []
        for path in paths:
            new_lines.append((path, self._new_lines(path)))
        for path, lines in reversed(new_lines):
            for line in lines:
                event = self._parse(path, line)
                if event is not None:
                    yield event

    def _parse(self, path: Path, line: bytes) -> Event | None:
        number = self.line_counts.get(path.name, 0) + 1
        self.line_counts[path.name] = number
        try:
            return parse_event(unseal(line))
        except ValueError as error:
            damaged = DamagedLine(path, number, str(error))
        self.damaged.append(damaged)
        logger.info("left out of the journal: %s", damaged)
        return None

    def _new_lines(self, path: Path) -> list[bytes]:
        offset = self.offsets.get(path.name, 0)
        lines: list[bytes] = []
        with path.open("rb") as stream:
            stream.seek(offset)
            for line in stream:
                # its writer is at it this moment: the offset stays before it
                if not line.endswith(b"\n"):
                    break
                lines.append(line)
                offset += len(line)
        self.offsets[path.name] = offset
        return lines
