"""The trials of a search: proposed, run, ended, each a line in the search's journal; and the choice that follows from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestrator.config.search import SearchConfig
from orchestrator.planning.planner import Planner
from orchestrator.search.space import Values, size_of, with_values
from orchestrator.search.suggestions import TrialRecord, suggest_values
from orchestrator.search.trials import (
    Cost,
    MethodSearch,
    Trial,
    TrialResult,
    search_key,
    tasks_done,
    trial_node,
    trial_result,
)
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import Event, TrialEnded, TrialEvent, TrialProposed, TrialReopened
from orchestrator.store.journal import Journal, Tail
from orchestrator.training.sequence import is_complete


class TrialStore:
    """All trials of a search, kept in a journal that outlives the process."""

    def __init__(
        self,
        folder: Path,
        search: SearchConfig,
        planner: Planner,
        method_searches: Sequence[MethodSearch],
        gpus: float = 0.0,
    ) -> None:
        self.folder, self.search, self.planner, self.method_searches, self.gpus = (
            folder,
            search,
            planner,
            method_searches,
            gpus,
        )
        self.trials: dict[str, Trial] = {}
        self.ends: dict[str, TrialResult] = {}
        self.running: set[str] = set()
        self._notes: dict[str, dict[str, Any]] = {}
        self._journal = Journal(folder, "trials")
        by_definition = {c.definition: c for c in method_searches}
        for event in Tail(folder).new_events():
            method_search = by_definition.get(event.definition) if isinstance(event, TrialEvent) else None
            if method_search:  # else of a search that was defined differently
                self._take(event, method_search)

    def _take(self, event: Event, method_search: MethodSearch) -> None:
        assert isinstance(event, TrialEvent)
        key = f"{method_search.label}-{event.number:03d}"
        if isinstance(event, TrialProposed):
            self.trials.setdefault(key, self._trial(method_search, event.number, event.values))
            self._notes[key] = event.notes
        elif isinstance(event, TrialReopened):
            self.ends.pop(key, None)
        elif isinstance(event, TrialEnded) and key in self.trials:
            fields = {**event.result, "cost": Cost(**event.result["cost"])}
            self.ends.setdefault(key, TrialResult(**fields))

    def _trial(self, method_search: MethodSearch, number: int, values: Values) -> Trial:
        config, search = self.planner.config, self.search
        method = with_values(method_search.entry, values)
        key = f"{method_search.label}-{number:03d}"
        name = f"{config.name}-{key}"
        root = search_key(config.name)
        above = ((root, f"{config.name}: search"), (trial_node(root, key, method_search.definition), name))
        streams = [s.model_copy(update={"first": 1}) if search.select == "first-task" else s for s in search.streams]
        sequences = (
            sequence
            for stream in streams
            for seed in search.seeds
            for sequence in self.planner.sequences(method, stream, seed, "dev", f"{config.name}-{number:03d}-", above)
        )
        return Trial(method_search.label, number, values, tuple(sequences), method_search.definition)

    def all(self) -> list[Trial]:
        """Every method's trials, up to the number that is asked for: an earlier search may have had more."""
        return [t for t in list(self.trials.values()) if t.number < self.search.trials]

    def of(self, label: str) -> list[Trial]:
        """A method's trials, by number."""
        return sorted((t for t in self.all() if t.method == label), key=lambda t: t.number)

    def planned(self) -> int:
        """How many trials there will be; a small space may hold fewer than were asked for."""
        return sum(int(min(size_of(c.space), self.search.trials)) for c in self.method_searches)

    def past(self, label: str) -> list[TrialRecord]:
        """A method's trials as the next proposal sees them."""
        found = []
        for trial in self.of(label):
            end = self.ends.get(trial.key)
            score = end.score if end and end.status == "finished" else None
            found.append(TrialRecord(trial.values, score, end is None, self._notes.get(trial.key, {})))
        return found

    def usage(self, label: str) -> int:
        """Tasks that a method's trials took; of those that have not ended, what they may take."""
        trials = self.of(label)
        return sum(self.ends[t.key].cost.tasks if t.key in self.ends else t.tasks * len(t.sequences) for t in trials)

    def start_next(self) -> Trial | None:
        """The trial to run now: one that was cut off, else a new one of the method with the fewest. None: all are begun."""
        trial = self._cut_off()
        if trial is None and (planned := self._plan_next()):
            trial, notes = planned
            self._journal.append(TrialProposed(**_names(trial), values=trial.values, notes=notes))
            self.trials[trial.key], self._notes[trial.key] = trial, notes
        if trial:
            self.running.add(trial.key)
        return trial

    def is_done(self) -> bool:
        """Whether every trial has ended and there is no further one."""
        return self._cut_off() is None and not self.running and self._plan_next() is None

    def _cut_off(self) -> Trial | None:
        return next((t for t in self.all() if t.key not in self.ends and t.key not in self.running), None)

    def _plan_next(self) -> tuple[Trial, dict[str, Any]] | None:
        for method_search in sorted(self.method_searches, key=lambda c: len(self.of(c.label))):
            number = len(self.of(method_search.label))
            budget = self.search.trial_tasks
            if number >= self.search.trials or (budget and self.usage(method_search.label) >= budget):
                continue
            suggestion = suggest_values(self.search, method_search.space, number, self.past(method_search.label))
            if suggestion is None:
                continue
            return self._trial(method_search, number, suggestion.values), suggestion.notes
        return None

    def reopen_failed(self) -> None:
        """Have the trials that failed run again."""
        for trial in self.all():
            if trial.key in self.ends and self.ends[trial.key].status == "failed":
                del self.ends[trial.key]
                self._journal.append(TrialReopened(**_names(trial)))

    def end_complete(self) -> None:
        """Note the end of trials that were done when the last process died before it could."""
        for trial in self.all():
            if trial.key not in self.ends and all(is_complete(s, Store(Path(s.out))) for s in trial.sequences):
                views = trial.views()
                if all(view.tasks for view in views) and tasks_done(views) == trial.tasks:
                    self.end(trial)

    def end(self, trial: Trial, problem: str = "") -> None:
        """Note how a trial ended, once: its journals say it, or the `problem` that its driver had."""
        self.running.discard(trial.key)
        end = trial_result(trial, self.search, self.planner.config.scaling.workers, self.gpus, problem)
        if trial.key not in self.ends:
            self.ends[trial.key] = end
            self._journal.append(TrialEnded(**_names(trial), result=asdict(end)))

    def best(self, label: str) -> Trial | None:
        """The finished trial with the highest score; of equal ones the first. None where none finished."""
        finished = [t for t in self.of(label) if t.key in self.ends and self.ends[t.key].status == "finished"]
        return max(finished, key=lambda t: (self.ends[t.key].score, -t.number), default=None)

    def fingerprint(self) -> str:
        """SHA-256 over every trial and how it ended."""
        rows = [
            [t.key, t.values, self.ends[t.key].status, self.ends[t.key].score]
            for c in self.method_searches
            for t in self.of(c.label)
            if t.key in self.ends
        ]
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def _names(trial: Trial) -> dict[str, Any]:
    """The fields that every event of a trial has."""
    return {"definition": trial.definition, "method": trial.method, "number": trial.number}
