"""The test-access log: who read a test split, why and when. Tuning reads none; the report prints what there is."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.storage.lines import Segments, files_of_lines
from orchestrator.storage.places import is_local
from orchestrator.store.integrity import seal, unseal
from orchestrator.store.records.event import now_ms
from streams import Task


@dataclass(frozen=True)
class TestAccessLog:
    """Lines in the output folder, a file for each process, so that no two append to one."""

    __test__ = False  # pytest takes a class of this name for tests

    out: Path

    @property
    def folder(self) -> Path:
        """Where the lines are."""
        return self.out / "test_access"

    def reader(self, experiment: str, by: str, why: str) -> Callable[[Task], None]:
        """What a task calls when its test split is read."""

        def record(task: Task) -> None:
            entry = {
                "time": now_ms(),
                "experiment": experiment,
                "dataset": task.dataset,
                "task": task.name,
                "by": by,
                "why": why,
            }
            # on shared storage two machines may well have the same process id
            _append(self.folder, f"{socket.gethostname()}-{os.getpid()}", seal(entry) + b"\n")

        return record

    def entries(self) -> list[dict[str, Any]]:
        """All lines, oldest first. One that a crash tore, or that is damaged otherwise, is left out."""
        entries: list[dict[str, Any]] = []
        for file, _ in files_of_lines(self.folder, first=""):
            for line in file.read_bytes().splitlines():
                try:
                    entries.append(unseal(line))
                except ValueError:
                    continue
        return sorted(entries, key=lambda entry: int(entry["time"]))


# In an object store, the lines of this process by their folder
_segments: dict[Path, Segments] = {}


def _append(folder: Path, writer: str, line: bytes) -> None:
    if not is_local(folder):
        if folder not in _segments:
            _segments[folder] = Segments(folder, writer)
        _segments[folder].append(line, at_once=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{writer}.jsonl").open("ab") as stream:
        stream.write(line)
