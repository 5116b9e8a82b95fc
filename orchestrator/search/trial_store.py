"""The trials of a search, kept in its journal: suggested, run and ended, each a line; and the best of each method."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestrator.config.search import SearchConfig
from orchestrator.planning.planner import Planner
from orchestrator.search.definition import MethodSearch
from orchestrator.search.space import Values, size_of, with_values
from orchestrator.search.suggestions import TrialRecord, suggest_values
from orchestrator.search.trials import (
    Cost,
    Trial,
    TrialResult,
    tasks_done,
    trial_result,
)
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import TrialEnded, TrialEvent, TrialReopened, TrialSuggested
from orchestrator.store.identities import search_run, trial_name, trial_run
from orchestrator.store.journal import Journal, Tail
from orchestrator.training.sequence import is_complete


class TrialStore:
    """All trials of a search, kept in a journal that outlives the process.

    `trials` and `results` are by key; a trial without a result runs (`running`), or was cut off with its process.
    """

    def __init__(
        self,
        folder: Path,
        search: SearchConfig,
        planner: Planner,
        method_searches: Sequence[MethodSearch],
        gpus_per_worker: float = 0.0,
    ) -> None:
        self.folder = folder
        self.search = search
        self.planner = planner
        self.method_searches = method_searches
        self.gpus_per_worker = gpus_per_worker
        self.trials: dict[str, Trial] = {}
        self.results: dict[str, TrialResult] = {}
        self.running: set[str] = set()
        self._stopped: set[str] = set()
        self._notes: dict[str, dict[str, Any]] = {}
        self._journal = Journal(folder, "trials")
        self._replay_journal()

    def _replay_journal(self) -> None:
        by_definition = {m.definition: m for m in self.method_searches}
        for event in Tail(self.folder).new_events():
            if not isinstance(event, TrialEvent):
                continue
            # The journal also holds the trials of searches that were defined differently under this name.
            method_search = by_definition.get(event.definition)
            if method_search:
                self._replay(event, method_search)

    def _replay(self, event: TrialEvent, method_search: MethodSearch) -> None:
        key = event.trial
        if isinstance(event, TrialSuggested):
            self.trials.setdefault(key, self._make_trial(method_search, event.number, event.values))
            self._notes[key] = event.notes
        elif isinstance(event, TrialReopened):
            self.results.pop(key, None)
        elif isinstance(event, TrialEnded) and key in self.trials:
            fields = event.result | {"cost": Cost(**event.result["cost"])}
            self.results.setdefault(key, TrialResult(**fields))

    def _make_trial(self, method_search: MethodSearch, number: int, values: Values) -> Trial:
        experiment = self.planner.config.name
        method = with_values(method_search.entry, values)
        key = trial_name(method_search.label, number)
        parents = (search_run(experiment), trial_run(experiment, key, method_search.definition))
        sequences = []
        for stream in self.search.streams:
            if self.search.select == "first-task":
                stream = stream.model_copy(update={"first": 1})
            for seed in self.search.seeds:
                prefix = f"{experiment}-{number:03d}-"
                sequences += self.planner.sequences(method, stream, seed, "dev", prefix, parents)
        return Trial(method_search.label, number, values, tuple(sequences), method_search.definition)

    def all_trials(self) -> list[Trial]:
        """Every method's trials, up to the number that is asked for: an earlier search may have had more."""
        # A copy, since the screen is drawn by a thread of its own while trials are added.
        trials = list(self.trials.values())
        return [trial for trial in trials if trial.number < self.search.trials]

    def trials_of(self, label: str) -> list[Trial]:
        """A method's trials, by number."""
        trials = [trial for trial in self.all_trials() if trial.method == label]
        return sorted(trials, key=lambda trial: trial.number)

    def ended_trials(self, label: str) -> Iterator[tuple[Trial, TrialResult]]:
        """A method's trials that ended, by number, and how."""
        for trial in self.trials_of(label):
            result = self.results.get(trial.key)
            if result:
                yield trial, result

    def num_planned(self) -> int:
        """How many trials there will be; a small space may hold fewer than were asked for."""
        planned = 0
        for method_search in self.method_searches:
            planned += int(min(size_of(method_search.space), self.search.trials))
        return planned

    def records(self, label: str) -> list[TrialRecord]:
        """A method's trials as the next suggestion sees them."""
        records = []
        for trial in self.trials_of(label):
            result = self.results.get(trial.key)
            score = None
            # A stopped trial's score is over fewer tasks, which are not to be compared with all of them.
            if result and result.status == "finished":
                score = result.score
            records.append(TrialRecord(trial.values, score, result is None, self._notes.get(trial.key, {})))
        return records

    def usage(self, label: str) -> int:
        """The number of tasks that a method's trials took; of those that have not ended, what they may take."""
        tasks = 0
        for trial in self.trials_of(label):
            if trial.key in self.results:
                tasks += self.results[trial.key].cost.tasks
            else:
                tasks += trial.num_tasks * len(trial.sequences)
        return tasks

    def start_next(self) -> Trial | None:
        """The trial to run now: one that was cut off, else a new one of the method with the fewest. None: all are begun."""
        trial = self._cut_off()
        if trial is None:
            trial = self._start_new()
        if trial:
            self.running.add(trial.key)
        return trial

    def is_done(self) -> bool:
        """Whether every trial has ended and there is no further one."""
        return self._cut_off() is None and not self.running and self._plan_next() is None

    def _cut_off(self) -> Trial | None:
        for trial in self.all_trials():
            if trial.key not in self.results and trial.key not in self.running:
                return trial
        return None

    def _start_new(self) -> Trial | None:
        planned = self._plan_next()
        if planned is None:
            return None
        trial, notes = planned
        # On disk before it runs: a process that dies now finds the trial cut off, not its number taken twice.
        self._journal.append(TrialSuggested(**trial.identity, values=trial.values, notes=notes))
        self._notes[trial.key] = notes
        self.trials[trial.key] = trial
        return trial

    def _plan_next(self) -> tuple[Trial, dict[str, Any]] | None:
        # Methods take turns, so a search that is cut off has spent as much on each.
        for method_search in sorted(self.method_searches, key=lambda m: len(self.trials_of(m.label))):
            label = method_search.label
            number = len(self.trials_of(label))
            if number >= self.search.trials or self._is_spent(label):
                continue
            suggestion = suggest_values(self.search, method_search.space, number, self.records(label))
            if suggestion:
                return self._make_trial(method_search, number, suggestion.values), suggestion.notes
        return None

    def _is_spent(self, label: str) -> bool:
        budget = self.search.trial_tasks
        return budget is not None and self.usage(label) >= budget

    def reopen_failed(self) -> None:
        """Have the trials that failed run again."""
        for trial in self.all_trials():
            result = self.results.get(trial.key)
            if result and result.status == "failed":
                del self.results[trial.key]
                self._journal.append(TrialReopened(**trial.identity))

    def record_complete(self) -> None:
        """Record the results of trials that were done when the last process died before it could."""
        for trial in self.all_trials():
            if trial.key not in self.results and _has_everything(trial):
                self.record_result(trial)

    def mark_stopped(self, key: str) -> None:
        """Take the scheduler's word that a trial goes no further: one that ends early without it has failed."""
        self._stopped.add(key)

    def record_result(self, trial: Trial, problem: str = "") -> None:
        """Record how a trial ended, once: its journals say it, or the `problem` that its driver had."""
        self.running.discard(trial.key)
        if trial.key not in self.results:
            workers = self.planner.config.scaling.workers
            stopped = trial.key in self._stopped
            result = trial_result(trial, self.search, workers, self.gpus_per_worker, problem, stopped)
            self.results[trial.key] = result
            self._journal.append(TrialEnded(**trial.identity, result=asdict(result)))

    def best(self, label: str) -> Trial | None:
        """The finished trial with the highest score; of equal ones the first. None where none finished."""
        best = None
        highest = 0.0
        for trial, result in self.ended_trials(label):
            if result.status != "finished":
                continue
            assert result.score is not None
            if best is None or result.score > highest:
                best = trial
                highest = result.score
        return best

    def fingerprint(self) -> str:
        """SHA-256 over every trial and how it ended."""
        facts = []
        for method_search in self.method_searches:
            for trial, result in self.ended_trials(method_search.label):
                facts.append([trial.key, trial.values, result.status, result.score])
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _has_everything(trial: Trial) -> bool:
    """Whether the store has every state and score of a trial, and its journals say so."""
    for sequence in trial.sequences:
        if not is_complete(sequence, Store(Path(sequence.out))):
            return False
    # Another sequence may have made all that this one needs before this one has begun: its own journal is then empty.
    return tasks_done(trial.views()) == trial.num_tasks
