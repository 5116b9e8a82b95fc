"""The journal of a sequence: every fact, appended as it happens, and what follows from reading it back.

A journal is a folder of JSON-lines files, one a writer ("train": the first training worker; "evaluate": scores that were
computed elsewhere), so no two processes append to one file. Everything else (screen, MLflow, report) is read from it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.metrics import Matrix

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


@dataclass
class TaskView:
    """What the journal says of one task."""

    started: int | None = None
    steps: dict[int, Event] = field(default_factory=dict)
    total_steps: int = 0
    checkpoint: Event | None = None


@dataclass
class View:
    """A sequence as its journal tells it. Facts count once: of two events on one fact the first stands."""

    id: str
    tasks: tuple[str, ...] = ()
    start: Event | None = None
    by_task: dict[int, TaskView] = field(default_factory=dict)
    cells: dict[tuple[int, int], Event] = field(default_factory=dict)
    status: str = "waiting"
    failure: str = ""
    starts: list[int] = field(default_factory=list)
    failed_at: int = 0
    finished_at: int = 0

    def add(self, event: Event) -> bool:
        """Take in one event; False if it says nothing new."""
        handler = getattr(self, f"_{event['event']}", None)
        return bool(handler(event)) if handler else True

    def _sequence_started(self, event: Event) -> bool:
        self.status, self.failure = "running", ""
        self.tasks, self.start = tuple(event["tasks"]), self.start or event
        self.starts.append(event.get("time", 0))
        return True

    def _task(self, event: Event) -> TaskView:
        return self.by_task.setdefault(event["task_id"], TaskView())

    def _task_started(self, event: Event) -> bool:
        task = self._task(event)
        new = task.started is None
        task.started, task.total_steps = task.started or event["time"], event["steps"]
        return new

    def _step(self, event: Event) -> bool:
        steps = self._task(event).steps
        new = event["step"] not in steps
        steps.setdefault(event["step"], event)
        return new

    def _checkpoint(self, event: Event) -> bool:
        task = self._task(event)
        new = task.checkpoint is None
        task.checkpoint = task.checkpoint or event
        return new

    def _cell(self, event: Event) -> bool:
        place = (event["row"], event["column"])
        new = place not in self.cells
        self.cells.setdefault(place, event)
        return new

    def _sequence_finished(self, event: Event) -> bool:
        changed, self.status = self.status != "finished", "finished"
        self.finished_at = event["time"]
        return changed

    def _sequence_failed(self, event: Event) -> bool:
        changed = self.status != "failed"
        self.status, self.failure, self.failed_at = "failed", event["reason"], event["time"]
        return changed

    def matrix(self, value: str = "score") -> Matrix:
        """[T+1, T] in %, row 0 before training; NaN where there is no cell (or no such value) yet."""
        full = np.full((len(self.tasks) + 1, len(self.tasks)), np.nan)
        for (row, column), cell in self.cells.items():
            if cell.get(value) is not None:
                full[row, column] = cell[value]
        return full

    @property
    def seconds(self) -> float:
        """Training time of all its tasks, also of those that another sequence trained."""
        return float(sum(task.checkpoint["seconds"] for task in self.by_task.values() if task.checkpoint))

    def spent(self, unit: str) -> float | None:
        """Steps, tokens or flops of all its tasks, as `seconds`; None where a checkpoint is older than these numbers."""
        found = [task.checkpoint.get("spent", {}).get(unit) for task in self.by_task.values() if task.checkpoint]
        return sum(found) if found and None not in found else None

    def row_is_full(self, row: int) -> bool:
        """Whether every task has its cell in a row."""
        return all((row, column) in self.cells for column in range(len(self.tasks)))

    def test_sizes(self) -> list[int]:
        """Test examples of each task, from the cells."""
        return [
            next((c["n"] for (_, j), c in self.cells.items() if j == column), 0) for column in range(len(self.tasks))
        ]


def read_view(out: str | Path, sequence_id: str) -> View:
    """The whole journal of a sequence."""
    return fold(sequence_id, Tail(journal_folder(out, sequence_id)).new_events())


def fold(sequence_id: str, events: Iterable[Event]) -> View:
    """A view from events."""
    view = View(sequence_id)
    for event in events:
        view.add(event)
    return view
