"""TODO orchestrator.search.screen"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.report.screen import LiveScreen
from orchestrator.search.space import size_of
from orchestrator.search.trial_store import TrialStore
from orchestrator.search.trials import Trial, TrialResult
from orchestrator.store.journal import Tail, journal_folder
from orchestrator.store.view import View


class SearchScreen(LiveScreen):
    """The trials of a search: those that run, the best of each method, and the last that ended; a line each elsewhere."""

    def __init__(self, trial_store: TrialStore, statement: str, console: Console) -> None:
        super().__init__(console)
        self.trial_store, self.statement = trial_store, statement
        self.tails: dict[str, Tail] = {}
        self.views: dict[str, View] = {}
        self.said = set(trial_store.ends)
        if self.live is None:
            console.print(statement, highlight=False)
            for method_search in trial_store.method_searches:
                if (size := size_of(method_search.space)) < trial_store.search.trials:
                    said = f"{method_search.label}: its space holds {size:g} of the {trial_store.search.trials} trials"
                    console.print(said, highlight=False)

    def show(self) -> None:
        """Read what the journals say by now, and draw it."""
        for trial in list(self.trial_store.trials.values()):
            if trial.key in self.trial_store.running or trial.key not in self.trial_store.ends:
                for sequence in trial.sequences:
                    view = self.views.setdefault(sequence.id, View(sequence.id))
                    tail = self.tails.setdefault(sequence.id, Tail(journal_folder(sequence.out, sequence.id)))
                    view.read(tail)
        for key, end in list(self.trial_store.ends.items()):
            if key not in self.said:
                self.said.add(key)
                if self.live is None:
                    values = show_values(self.trial_store.trials[key].values)
                    self.console.print(f"{self._clock()} {key} ({values}): {_ended(end)}", highlight=False)

    def table(self) -> Table:
        trials = {trial.key: trial for trial in self.trial_store.all()}
        ends = {key: end for key, end in dict(self.trial_store.ends).items() if key in trials}
        trained = sum(e.cost.trained for e in ends.values())
        asked = sum(e.cost.tasks for e in ends.values())
        planned = self.trial_store.planned()
        table = Table(box=None, pad_edge=False, title_justify="left", title_style="dim")
        table.title = (
            f"{self.statement}\n{len(ends)} of {planned} trials, {trained} of {asked} tasks trained, the rest shared"
        )
        for heading in ("trial", "values", "progress", "score", ""):
            table.add_column(heading, no_wrap=True)
        best = {t.key for c in self.trial_store.method_searches if (t := self.trial_store.best(c.label))}
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


def view_tasks(views: Sequence[View]) -> int:
    """Tasks that all of the views have trained."""
    return min(sum(1 for task in list(view.by_task.values()) if task.checkpoint) for view in views)


def show_values(values: Mapping[str, Any]) -> str:
    """`lr 0.001, ratio 0.3`."""
    named = ((name.split(".", 1)[1], value) for name, value in values.items())
    return ", ".join(f"{n} {v:g}" if isinstance(v, float) else f"{n} {v}" for n, v in named) or "nothing to choose"


def _ended(end: TrialResult) -> str:
    if end.score is None:
        return f"failed: {end.reason}"
    return f"{end.score:.1f}" + (f", stopped after {end.tasks} tasks" if end.status == "stopped" else "")
