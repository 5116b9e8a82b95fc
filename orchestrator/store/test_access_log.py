"""The ledger: who read a test split, why and when. Tuning reads none; the report prints what there is."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streams import Task


@dataclass(frozen=True)
class TestAccessLog:
    """Lines in the output folder, a file for each process, so that no two append to one."""

    __test__ = False  # pytest takes a class of this name for tests

    out: Path

    @property
    def folder(self) -> Path:
        """Where the lines are."""
        return self.out / "test_access_log"

    def reader(self, experiment: str, by: str, why: str) -> Callable[[Task], None]:
        """What a task calls when its test split is read."""

        def note(task: Task) -> None:
            self.folder.mkdir(parents=True, exist_ok=True)
            line = {
                "time": int(time.time() * 1000),
                "experiment": experiment,
                "dataset": task.dataset,
                "task": task.name,
                "by": by,
                "why": why,
            }
            with (self.folder / f"{socket.gethostname()}-{os.getpid()}.jsonl").open("a") as stream:
                stream.write(json.dumps(line) + "\n")

        return note

    def entries(self) -> list[dict[str, Any]]:
        """All lines, oldest first. One that a crash tore is left out."""
        found = []
        for file in self.folder.glob("*.jsonl"):
            for line in file.read_text().splitlines():
                try:
                    found.append(json.loads(line))
                except json.JSONDecodeError:
                    continue
        return sorted(found, key=lambda entry: entry["time"])
