"""What a user sees while an experiment runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.evaluation.scorers import SCORERS
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.events import ScoreComputed
from orchestrator.store.versions import library_versions, reuse_line
from orchestrator.store.view import View

# In columns of a terminal, of which there may be 80: a loss, a rate and five scores, the bar, and what lies between
NUMBER_WIDTHS = {"loss": 7, "tokens/s": 8, "last scores": 15}
BAR_WIDTH = 12
GAPS = 10
# Lines of the screen that are no sequence's: the clock, the headings, what the others do, and what Ray and the shell print
RESERVED_LINES = 6
# So many sequences are redrawn at once without a thought
FEW = 50
# What names take however narrow the terminal is
MOST_CUT = 20


class LiveScreen:
    """A clock, what is going on, and below it what a subclass draws; on a terminal, redrawn in place."""

    def __init__(self, console: Console, redraws_a_second: float = 4) -> None:
        self.console = console
        self.started = time.monotonic()
        self.phase = "starting"
        self.versions = library_versions()
        self.has_told_versions = False
        self.live: Live | None = None
        # a file, a pipe or a dumb terminal gets lines instead: it cannot be redrawn
        if console.is_interactive:
            # transient: when it ends, the table of results takes its stead
            self.live = Live(self, console=console, refresh_per_second=redraws_a_second, transient=True)

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
        """Show what is going on as a whole, such as `training`."""
        # called again and again while nothing changes: a line each time would fill a log
        if phase == self.phase:
            return
        self.phase = phase
        if not self.live:
            self.console.print(f"{self._clock()} {phase}", highlight=False)

    def tell_versions(self, views: Iterable[View]) -> None:
        """Say once that states are reused which other releases of the libraries trained."""
        if self.has_told_versions:
            return
        makers: list[dict[str, str]] = []
        for view in views:
            makers += view.makers_versions()
        line = reuse_line(makers, self.versions)
        if line:
            self.has_told_versions = True
            self.console.print(line, style="yellow", highlight=False, soft_wrap=True)

    def __rich__(self) -> Group:
        return Group(Text(f"{self._clock()} {self.phase}", style="dim"), self.table())

    def table(self) -> Table:
        """The table of what is known by now."""
        raise NotImplementedError

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self.started)
        return f"{seconds // 60:02d}:{seconds % 60:02d}"


class Screen(LiveScreen):
    """The sequences of an experiment; without a terminal, a line for each finished task."""

    def __init__(self, sequences: Sequence[SequencePlan], console: Console) -> None:
        # nothing that many sequences do is worth the processor's time four times a second
        super().__init__(console, 4 if len(sequences) <= FEW else 1)
        self.sequences = sequences
        self.printed: set[tuple[str, int]] = set()
        self.has_shown = False
        self.views: Sequence[View] = [View(sequence.id) for sequence in sequences]

    def show(self, views: Sequence[View]) -> None:
        """Draw what the journals say by now. What they say at the first look was done before this command was given."""
        self.views = views
        self.tell_versions(views)
        if self.live is None:
            for sequence, view in zip(self.sequences, views, strict=True):
                self._print_finished_tasks(sequence, view, done_before=not self.has_shown)
        self.has_shown = True

    def table(self) -> Table:
        """A line for each sequence: its name and progress, what its last step gave, and its last scores."""
        table = Table(box=None, pad_edge=False)
        # where the terminal is narrow, names are cut and numbers are not: half of a number is another one
        room = max(MOST_CUT, self.console.width - sum(NUMBER_WIDTHS.values()) - BAR_WIDTH - GAPS)
        table.add_column("sequence", no_wrap=True, max_width=room * 3 // 5)
        table.add_column("task", no_wrap=True, max_width=room * 2 // 5)
        table.add_column("progress", no_wrap=True)
        for heading, width in NUMBER_WIDTHS.items():
            table.add_column(heading, no_wrap=True, min_width=width)
        drawn = self._drawn()
        for number in drawn:
            sequence = self.sequences[number]
            table.add_row(_name(sequence), *progress_cells(sequence, self.views[number]))
        if len(drawn) < len(self.sequences):
            table.caption = self._others(drawn)
            table.caption_justify = "left"
        return table

    def _drawn(self) -> list[int]:
        """The numbers of the sequences that are drawn: all where they fit, else first those that run, and none that finished."""
        room = max(1, self.console.height - RESERVED_LINES)
        if len(self.sequences) <= room:
            return list(range(len(self.sequences)))
        running: list[int] = []
        failed: list[int] = []
        waiting: list[int] = []
        by_last_word = {"running": running, "failed": failed, "waiting": waiting}
        for number, view in enumerate(self.views):
            if view.last_word in by_last_word:
                by_last_word[view.last_word].append(number)
        return sorted((running + failed + waiting)[:room])

    def _others(self, drawn: Sequence[int]) -> str:
        """What the sequences do that are not drawn, such as `and 970 more: 900 finished, 70 waiting`."""
        words = Counter(view.last_word for view in self.views)
        words.subtract(self.views[number].last_word for number in drawn)
        counts = [f"{count} {word}" for word, count in sorted(words.items()) if count]
        return f"and {words.total()} more: {', '.join(counts)}"

    def _print_finished_tasks(self, sequence: SequencePlan, view: View, done_before: bool) -> None:
        for task_id, task in view.by_task.items():
            event = task.checkpoint
            if event is None or (view.id, task_id) in self.printed:
                continue
            # a finished task stays in the view, and is shown again with every look at the journals
            self.printed.add((view.id, task_id))
            how = f"trained in {event.seconds:.1f} s"
            if event.reused or done_before:
                how = "found in the store"
            which = f"task {task_id + 1}/{len(sequence.tasks)} {event.task}"
            line = f"{self._clock()} {sequence.method.label}, seed {sequence.seed}: {which} {how}"
            self.console.print(line, highlight=False)


def _name(sequence: SequencePlan) -> str:
    parts = [sequence.method.label, sequence.stream.name]
    if sequence.stream.only is not None:
        parts.append(sequence.stream.only)
    return " · ".join([*parts, str(sequence.seed)])


def progress_cells(sequence: SequencePlan, view: View) -> list[Text | ProgressBar | str]:
    """The cells of a sequence's line: its task or status, a bar over all tasks, loss, tokens a second, and scores."""
    # copies: the screen is drawn by a thread of its own while the journal is read
    tasks = list(view.by_task.items())
    scores = dict(view.scores)
    num_done = 0
    current = None
    for task_id, task in tasks:
        if task.checkpoint:
            num_done += 1
        elif current is None:
            current = task_id
    completed: float = num_done
    loss = ""
    tokens_per_s = ""
    if current is not None:
        last_step = view.by_task[current].last_step
        if last_step is not None:
            completed += len(view.by_task[current].steps) / view.by_task[current].total_steps
            loss = f"{last_step.loss:.4f}"
            tokens_per_s = f"{last_step.tokens_per_s:,.0f}"
    num_tasks = len(sequence.tasks)
    label = Text(_label(sequence, view.status, num_done, current))
    label.stylize({"failed": "red", "finished": "green"}.get(view.status, ""))
    bar = ProgressBar(total=num_tasks, completed=min(num_tasks, completed), width=BAR_WIDTH)
    return [label, bar, loss, tokens_per_s, _last_scores(scores, sequence.scorers)]


def _label(sequence: SequencePlan, status: str, num_done: int, current: int | None) -> str:
    """The task that is trained now; else how many are done, or the status."""
    num_tasks = len(sequence.tasks)
    if status in ("failed", "finished"):
        return status
    if current is not None:
        return f"{current + 1}/{num_tasks} {sequence.tasks[current]}"
    if status == "running" and num_done:
        return f"{num_done}/{num_tasks}"
    return status


def _last_scores(scores: Mapping[tuple[int, int], ScoreComputed], scorers: Sequence[str]) -> str:
    """The scores of the state that has seen the most tasks, in the tasks' order, in few digits: whole numbers of %."""
    most_seen = max((tasks_seen for tasks_seen, _ in scores), default=0)
    shown = []
    for task_id, scorer in enumerate(scorers):
        if (most_seen, task_id) in scores:
            form = ".0f" if SCORERS[scorer].unit == "%" else ".3g"
            shown.append(format(scores[most_seen, task_id].score, form))
    return " ".join(shown)
