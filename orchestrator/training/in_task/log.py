"""The record of a task's steps while it is trained."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.store.events import Step, parse_event
from orchestrator.store.records.event import Report


def no_look(step: int) -> None:
    """Nobody looks at the model amid a task."""


@dataclass
class TaskLog:
    """The steps of a task as they are recorded, and what they used; `look(step)` is whoever looks at the model amid it."""

    report: Report
    look: Callable[[int], None] = no_look
    seconds_before: float = 0.0
    seconds_apart: float = 0.0
    steps: list[dict[str, Any]] = field(default_factory=list)
    num_tokens: int = 0
    num_flops: int = 0
    began: float = field(default_factory=lambda: time.monotonic())

    @property
    def seconds(self) -> float:
        """The training time up to now, with that of the processes that trained the first part of the task."""
        return self.seconds_before + time.monotonic() - self.began - self.seconds_apart

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """What happens meanwhile is no training, and takes no training time."""
        began = time.monotonic()
        yield
        self.seconds_apart += time.monotonic() - began

    def add(self, step: Step, num_tokens: int, num_flops: int) -> None:
        """Record a step."""
        self.steps.append(step.to_json())
        self.num_tokens += num_tokens
        self.num_flops += num_flops
        self.report(step)

    def let_look(self, step: int) -> None:
        """Have the model looked at as it is after so many steps."""
        with self.apart():
            self.look(step)

    def history(self, diagnostics: Mapping[str, Any]) -> dict[str, Any]:
        """The task's history up to now, as a checkpoint keeps it (see `checkpoints.State`)."""
        usage = {"steps": len(self.steps), "tokens": self.num_tokens, "flops": self.num_flops}
        return {"seconds": round(self.seconds, 3), "steps": self.steps, "usage": usage, "diagnostics": diagnostics}

    def go_on_from(self, history: Mapping[str, Any]) -> None:
        """Take over the steps of another process, and record them: its journal may have lost the last of them."""
        self.seconds_before = history["seconds"]
        self.num_tokens = history["usage"]["tokens"]
        self.num_flops = history["usage"]["flops"]
        self.steps = list(history["steps"])
        for values in self.steps:
            self.report(parse_event(values))
