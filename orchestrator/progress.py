"""What a user sees while an experiment runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from collections.abc import Sequence as Many
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.journal import Tail, View, journal_folder
from orchestrator.plan import Sequence
from orchestrator.space import size_of
from orchestrator.trials import End, Trial, TrialBook


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

    def __init__(self, sequences: Many[Sequence], console: Console) -> None:
        super().__init__(console)
        self.sequences = sequences
        self.said: set[tuple[str, int]] = set()
        self.views: Many[View] = [View(s.id) for s in sequences]

    def show(self, views: Many[View]) -> None:
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

    def _lines(self, views: Many[View]) -> None:
        for sequence, view in zip(self.sequences, views, strict=True):
            for task_id, task in view.by_task.items():
                if task.checkpoint and (view.id, task_id) not in self.said:
                    self.said.add((view.id, task_id))
                    event = task.checkpoint
                    how = "found in the store" if event["reused"] else f"trained in {event['seconds']:.1f} s"
                    name, total = event["task"], len(sequence.tasks)
                    which = f"{sequence.method.label}, seed {sequence.seed}: task {task_id + 1}/{total} {name}"
                    self.console.print(f"{self._clock()} {which} {how}", highlight=False)


class SearchScreen(LiveScreen):
    """The trials of a search: those that run, the best of each method, and the last that ended; a line each elsewhere."""

    def __init__(self, book: TrialBook, statement: str, console: Console) -> None:
        super().__init__(console)
        self.book, self.statement = book, statement
        self.tails: dict[str, Tail] = {}
        self.views: dict[str, View] = {}
        self.said = set(book.ends)
        if self.live is None:
            console.print(statement, highlight=False)
            for contender in book.contenders:
                if (size := size_of(contender.space)) < book.search.trials:
                    said = f"{contender.label}: its space holds {size:g} of the {book.search.trials} trials"
                    console.print(said, highlight=False)

    def show(self) -> None:
        """Read what the journals say by now, and draw it."""
        for trial in list(self.book.trials.values()):
            if trial.key in self.book.running or trial.key not in self.book.ends:
                for sequence in trial.sequences:
                    view = self.views.setdefault(sequence.id, View(sequence.id))
                    tail = self.tails.setdefault(sequence.id, Tail(journal_folder(sequence.out, sequence.id)))
                    for event in tail.new_events():
                        view.add(event)
        for key, end in list(self.book.ends.items()):
            if key not in self.said:
                self.said.add(key)
                if self.live is None:
                    values = show_values(self.book.trials[key].values)
                    self.console.print(f"{self._clock()} {key} ({values}): {_ended(end)}", highlight=False)

    def table(self) -> Table:
        trials = {trial.key: trial for trial in self.book.all()}
        ends = {key: end for key, end in dict(self.book.ends).items() if key in trials}
        trained = sum(e.cost.trained for e in ends.values())
        asked = sum(e.cost.tasks for e in ends.values())
        planned = self.book.planned()
        table = Table(box=None, pad_edge=False, title_justify="left", title_style="dim")
        table.title = (
            f"{self.statement}\n{len(ends)} of {planned} trials, {trained} of {asked} tasks trained, the rest shared"
        )
        for heading in ("trial", "values", "progress", "score", ""):
            table.add_column(heading, no_wrap=True)
        best = {t.key for c in self.book.contenders if (t := self.book.best(c.label))}
        running = [t for key, t in trials.items() if key not in ends]
        rows = max(3, self.console.height - 8 - len(running) - len(best))
        recent = [key for key in ends if key not in best][-rows:]
        for key in (*sorted(best), *recent):
            marked = " ← best" if key in best else ""
            table.add_row(key, show_values(trials[key].values), "", _ended(ends[key]), Text(marked, style="green"))
        for trial in running:
            share, said = self._progress(trial)
            bar = ProgressBar(total=1.0, completed=share, width=24)
            table.add_row(trial.key, show_values(trial.values), bar, said, "")
        return table

    def _progress(self, trial: Trial) -> tuple[float, str]:
        views = [self.views.get(s.id) or View(s.id) for s in trial.sequences]
        tasks = [task for view in views for task in list(view.by_task.values())]
        done = sum(1.0 if t.checkpoint else len(t.steps) / max(1, t.total_steps) for t in tasks)
        at = f"task {min(view_tasks(views) + 1, trial.tasks)}/{trial.tasks}" if tasks else "starting"
        return done / (trial.tasks * len(views)), at


def view_tasks(views: Many[View]) -> int:
    """Tasks that all of the views have trained."""
    return min(sum(1 for task in list(view.by_task.values()) if task.checkpoint) for view in views)


def show_values(values: Mapping[str, Any]) -> str:
    """`lr 0.001, ratio 0.3`."""
    named = ((name.split(".", 1)[1], value) for name, value in values.items())
    return ", ".join(f"{n} {v:g}" if isinstance(v, float) else f"{n} {v}" for n, v in named) or "nothing to choose"


def _ended(end: End) -> str:
    if end.score is None:
        return f"failed: {end.reason}"
    return f"{end.score:.1f}" + (f", stopped after {end.tasks} tasks" if end.status == "stopped" else "")


def _progress_cells(sequence: Sequence, view: View) -> list[Text | ProgressBar | str]:
    total = len(sequence.tasks)
    # copies: the screen is drawn by a thread of its own while the journal is read
    tasks, cells = list(view.by_task.items()), dict(view.cells)
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
    scores = " ".join(f"{cells[row, j]['score']:.0f}" for j in range(total) if (row, j) in cells)
    return [
        Text(label, style={"failed": "red", "finished": "green"}.get(view.status, "")),
        ProgressBar(total=total, completed=min(total, len(done) + share), width=24),
        f"{last['loss']:.4f}" if last else "",
        f"{last['tokens_per_s']:,.0f}" if last else "",
        scores,
    ]
