"""The trials of a search while they run."""

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

# Lines of the screen that are not a trial's: title, headings and what Ray and the shell print below.
RESERVED_LINES = 8


class SearchScreen(LiveScreen):
    """The trials of a search: those that run, the best of each method, and the last that ended.

    Without a terminal, a line for each trial that ended.
    """

    def __init__(self, trial_store: TrialStore, statement: str, console: Console) -> None:
        super().__init__(console)
        self.trial_store = trial_store
        self.statement = statement
        self.tails: dict[str, Tail] = {}
        self.views: dict[str, View] = {}
        # Trials that ended before this process: their lines were printed by the one that ran them.
        self.printed = set(trial_store.results)
        if self.live is None:
            console.print(statement, highlight=False)
            for line in _small_spaces(trial_store):
                console.print(line, highlight=False)

    def show(self) -> None:
        """Read what the journals say by now, and draw it."""
        for trial in list(self.trial_store.trials.values()):
            if trial.key in self.trial_store.running or trial.key not in self.trial_store.results:
                self._read_journals(trial)
        self.tell_versions(self.views.values())
        for key, result in list(self.trial_store.results.items()):
            if key in self.printed:
                continue
            self.printed.add(key)
            if self.live is None:
                values = show_values(self.trial_store.trials[key].values)
                self.console.print(
                    f"{self._clock()} {key} ({values}): {_outcome(self.trial_store.trials[key], result)}",
                    highlight=False,
                )

    def _read_journals(self, trial: Trial) -> None:
        for sequence in trial.sequences:
            view = self.views.setdefault(sequence.id, View(sequence.id))
            tail = self.tails.setdefault(sequence.id, Tail(journal_folder(sequence.out, sequence.id)))
            view.read(tail)

    def table(self) -> Table:
        """The best trials of each method, the last that ended, and those that run with their progress."""
        # The screen is drawn by a thread of its own while trials end: so copies, and what is taken later knows all that
        # was taken before.
        best = self._best_keys()
        trials = {}
        running = []
        results = {}
        all_results = dict(self.trial_store.results)
        for trial in self.trial_store.all_trials():
            trials[trial.key] = trial
            if trial.key not in all_results:
                running.append(trial)
        for key, result in all_results.items():
            if key in trials:
                results[key] = result
        table = Table(box=None, pad_edge=False, title_justify="left", title_style="dim")
        table.title = f"{self.statement}\n{self._summary(results)}"
        for heading in ("trial", "values", "progress", "score", ""):
            table.add_column(heading, no_wrap=True)
        num_recent = max(3, self.console.height - RESERVED_LINES - len(running) - len(best))
        recent = [key for key in results if key not in best][-num_recent:]
        for key in best:
            mark = Text(" ← best", style="green")
            table.add_row(key, show_values(trials[key].values), "", _outcome(trials[key], results[key]), mark)
        for key in recent:
            table.add_row(key, show_values(trials[key].values), "", _outcome(trials[key], results[key]), "")
        for trial in running:
            fraction, label = self._progress(trial)
            bar = ProgressBar(total=1.0, completed=fraction, width=24)
            table.add_row(trial.key, show_values(trial.values), bar, label, "")
        return table

    def _best_keys(self) -> list[str]:
        keys = []
        for method_search in self.trial_store.method_searches:
            best = self.trial_store.best(method_search.label)
            if best:
                keys.append(best.key)
        return sorted(keys)

    def _summary(self, results: Mapping[str, TrialResult]) -> str:
        trained = 0
        asked = 0
        for result in results.values():
            trained += result.cost.trained
            asked += result.cost.tasks
        planned = self.trial_store.num_planned()
        return f"{len(results)} of {planned} trials, {trained} of {asked} tasks trained, the rest shared"

    def _progress(self, trial: Trial) -> tuple[float, str]:
        """The fraction of a trial that is trained, over all of its sequences, and the task that it is at."""
        views = []
        done = 0.0
        started = False
        for sequence in trial.sequences:
            view = self.views.get(sequence.id) or View(sequence.id)
            views.append(view)
            for task in list(view.by_task.values()):
                started = True
                # A state that was found in the store has no steps.
                done += 1.0 if task.checkpoint else len(task.steps) / max(1, task.total_steps)
        label = "starting"
        if started:
            label = f"task {min(tasks_trained(views) + 1, trial.num_tasks)}/{trial.num_tasks}"
        return done / (trial.num_tasks * len(views)), label


def _small_spaces(trial_store: TrialStore) -> list[str]:
    lines = []
    for method_search in trial_store.method_searches:
        size = size_of(method_search.space)
        asked = trial_store.search.trials
        if size < asked:
            lines.append(f"{method_search.label}: its space holds {size:g} of the {asked} trials")
    return lines


def tasks_trained(views: Sequence[View]) -> int:
    """The number of tasks that all of the views have trained."""
    counts = []
    for view in views:
        count = 0
        for task in list(view.by_task.values()):
            if task.checkpoint:
                count += 1
        counts.append(count)
    return min(counts)


def show_values(values: Mapping[str, Any]) -> str:
    """A trial's values in a line, such as `lr 0.001, ratio 0.3`."""
    parts = []
    for name, value in values.items():
        setting = name.split(".", 1)[1]
        text = f"{value:g}" if isinstance(value, float) else str(value)
        parts.append(f"{setting} {text}")
    return ", ".join(parts) or "nothing to choose"


def _outcome(trial: Trial, result: TrialResult) -> str:
    if result.score is None:
        return f"failed: {result.reason}"
    score = f"{result.score:.{trial.measure.digits}f}"
    if result.status == "stopped":
        return f"{score}, stopped after {result.tasks} tasks"
    return score
