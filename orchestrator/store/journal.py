"""The journal of a sequence: every fact, appended as it happens, and what follows from reading it back.

A journal is a folder of JSON-lines files, one a writer ("train": the first training worker; "evaluate": scores that were
computed elsewhere), so no two processes append to one file. Everything else (screen, MLflow, report) is read from it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Event = dict[str, Any]


Report = Callable[[Event], None]


def journal_folder(out: str | Path, sequence_id: str) -> Path:
    """Where a sequence's journal is."""
    return Path(out) / "sequences" / sequence_id


def stamped(event: Event) -> Event:
    """The event with the time (milliseconds), unless it brings its own."""
    return {"time": int(time.time() * 1000)} | event


@dataclass
class Journal:
    """Appends events to one writer's file; each is on disk when `append` returns, a `step` one soon after."""

    folder: Path
    writer: str = "train"
    # the processor's and the loss's chatter need not each wait for the disk
    UNSYNCED = frozenset({"step", "system"})

    def append(self, event: Event) -> None:
        """Write one event (see `stamped`)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.writer}.jsonl"
        line = json.dumps(stamped(event))
        with path.open("ab+") as stream:
            if stream.tell() > 0:  # a line torn by a crash must not swallow this one
                stream.seek(-1, os.SEEK_END)
                line = line if stream.read(1) == b"\n" else "\n" + line
            stream.write(line.encode() + b"\n")
            stream.flush()
            if event["event"] not in self.UNSYNCED:
                os.fsync(stream.fileno())


@dataclass
class Tail:
    """Reads a journal from where it last stopped."""

    folder: Path
    offsets: dict[str, int] = field(default_factory=dict)

    def new_events(self) -> Iterator[Event]:
        """Events since the last call, in each writer's order; an unfinished line waits for the next call.

        A score is written after the fact that its state exists, by another writer. So the training's file is read last and
        given first: no score ever comes before its state.
        """
        paths = sorted(self.folder.glob("*.jsonl"), key=lambda path: path.stem == "train")
        read = [self._new_lines(path) for path in paths]
        for lines in reversed(read):
            for line in lines:
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    continue  # the torn line of a crash; what it said is said again by the resumed sequence

    def _new_lines(self, path: Path) -> list[bytes]:
        with path.open("rb") as stream:
            stream.seek(self.offsets.get(path.name, 0))
            lines = [line for line in stream if line.endswith(b"\n")]
        self.offsets[path.name] = self.offsets.get(path.name, 0) + sum(len(line) for line in lines)
        return lines
