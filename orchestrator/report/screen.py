"""What a user sees while an experiment runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.view import View


class LiveScreen:
    """A clock, what is going on, and below it what a subclass draws; on a terminal, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = time.monotonic()
        self.phase = "starting"
        self.live = Live(self, console=console, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def say(self, phase: str) -> None:
        """What is going on as a whole."""
        if phase == self.phase:
            return
        self.phase = phase
        if not self.live:
            self.console.print(f"{self._clock()} {phase}", highlight=False)

    def __rich__(self) -> Group:
        return Group(Text(f"{self._clock()} {self.phase}", style="dim"), self.table())

    def table(self) -> Table:
        """What is known by now."""
        raise NotImplementedError

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self.started)
        return f"{seconds // 60:02d}:{seconds % 60:02d}"


class Screen(LiveScreen):
    """The sequences of an experiment; without a terminal, a line for each finished task."""

    def __init__(self, sequences: Sequence[SequencePlan], console: Console) -> None:
        super().__init__(console)
        self.sequences = sequences
        self.said: set[tuple[str, int]] = set()
        self.views: Sequence[View] = [View(s.id) for s in sequences]

    def show(self, views: Sequence[View]) -> None:
        """Draw what the journals say by now."""
        self.views = views
        if not self.live:
            self._lines(views)

    def table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for heading in ("sequence", "task", "progress", "loss", "tokens/s", "last scores, one a task"):
            table.add_column(heading, no_wrap=True)
        for sequence, view in zip(self.sequences, self.views, strict=True):
            parts = (sequence.method.label, sequence.stream.name, sequence.stream.only, sequence.seed)
            name = " · ".join(str(part) for part in parts if part is not None)
            table.add_row(name, *_progress_cells(sequence, view))
        return table

    def _lines(self, views: Sequence[View]) -> None:
        for sequence, view in zip(self.sequences, views, strict=True):
            for task_id, task in view.by_task.items():
                if task.checkpoint and (view.id, task_id) not in self.said:
                    self.said.add((view.id, task_id))
                    event = task.checkpoint
                    how = "found in the store" if event.reused else f"trained in {event.seconds:.1f} s"
                    name, total = event.task, len(sequence.tasks)
                    which = f"{sequence.method.label}, seed {sequence.seed}: task {task_id + 1}/{total} {name}"
                    self.console.print(f"{self._clock()} {which} {how}", highlight=False)


def _progress_cells(sequence: SequencePlan, view: View) -> list[Text | ProgressBar | str]:
    total = len(sequence.tasks)
    # copies: the screen is drawn by a thread of its own while the journal is read
    tasks, cells = list(view.by_task.items()), dict(view.scores)
    done = [i for i, task in tasks if task.checkpoint]
    current = next((i for i, task in tasks if not task.checkpoint), None)
    steps = dict(view.by_task[current].steps) if current is not None else {}
    share = (len(steps) / view.by_task[current].total_steps) if current is not None else 0.0
    last = steps[max(steps)] if steps else None
    if view.status in ("failed", "finished") or current is None:
        label = view.status if view.status != "running" or not done else f"{len(done)}/{total}"
    else:
        label = f"{current + 1}/{total} {sequence.tasks[current]}"
    row = max((row for row, _ in cells), default=0)
    scores = " ".join(f"{cells[row, j].score:.0f}" for j in range(total) if (row, j) in cells)
    return [
        Text(label, style={"failed": "red", "finished": "green"}.get(view.status, "")),
        ProgressBar(total=total, completed=min(total, len(done) + share), width=24),
        f"{last.loss:.4f}" if last else "",
        f"{last.tokens_per_s:,.0f}" if last else "",
        scores,
    ]
