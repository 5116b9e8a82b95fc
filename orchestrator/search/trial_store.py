"""The trials of a search, kept in its journal: suggested, run and ended, each a line; and the best of each method."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestrator.config.search import SearchConfig
from orchestrator.evaluation.columns import is_complete
from orchestrator.planning.planner import Planner
from orchestrator.search.decisions import first_of_round
from orchestrator.search.decisions.halving import Halving
from orchestrator.search.decisions.suggestions import Sampler, TrialRecord
from orchestrator.search.definition import MethodSearch
from orchestrator.search.space import Values, size_of, with_values
from orchestrator.search.trials import (
    Cost,
    Trial,
    TrialResult,
    tasks_done,
    trial_result,
)
from orchestrator.storage.places import folder_at
from orchestrator.store.checkpoints import Store
from orchestrator.store.identities import search_run, trial_name, trial_run
from orchestrator.store.journal import Journal, Tail
from orchestrator.store.records.search_events import RungDecided, TrialEnded, TrialEvent, TrialReopened, TrialSuggested


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
        self._notes: dict[str, dict[str, Any]] = {}
        self._samplers = {m.label: Sampler(search, m.space) for m in method_searches}
        self._journal = Journal(folder, "trials")
        self.halving = Halving(search, self._journal)
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
        elif isinstance(event, RungDecided):
            self.halving.replay(event)
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

    def records(self, label: str, number: int) -> list[TrialRecord]:
        """A method's earlier trials as its trial of that number sees them."""
        first = first_of_round(self.search, number)
        records = []
        for trial in self.trials_of(label):
            if trial.number >= number:
                break
            # Of its own round a trial knows the values alone, whether or not some have ended by now.
            in_same_round = trial.number >= first
            score = None
            if not in_same_round:
                score = self._final_score(trial)
            records.append(TrialRecord(trial.values, score, in_same_round, self._notes.get(trial.key, {})))
        return records

    def _final_score(self, trial: Trial) -> float | None:
        result = self.results.get(trial.key)
        # A stopped trial's score is over fewer tasks, which are not to be compared with all of them.
        if result and result.status == "finished":
            return result.score
        return None

    def _history(self, label: str, number: int) -> list[Trial]:
        """The trials that a method's trial of that number learns from: those of the rounds before its own."""
        first = first_of_round(self.search, number)
        return [trial for trial in self.trials_of(label) if trial.number < first]

    def _has_history(self, label: str, number: int) -> bool:
        """Whether all that a trial learns from has ended."""
        if not self.search.in_rounds:
            return True
        ended = [trial for trial in self._history(label, number) if trial.key in self.results]
        return len(ended) == first_of_round(self.search, number)

    def passes_rung(self, trial: Trial, tasks: int, score: float) -> bool:
        """Whether a trial with this score after so many tasks goes on."""
        return self.halving.passes(trial, tasks, score, self._history(trial.method, trial.number))

    def usage(self, label: str, before: int | None = None) -> int:
        """The number of tasks that a method's trials took; of those that have not ended, what they may take.

        `before` leaves out the trials of that number and above.
        """
        tasks = 0
        for trial in self.trials_of(label):
            if before is not None and trial.number >= before:
                break
            if trial.key in self.results:
                tasks += self.results[trial.key].cost.tasks
            else:
                tasks += trial.num_tasks * len(trial.sequences)
        return tasks

    def start_next(self) -> Trial | None:
        """The trial to run now: one that was cut off, else a new one of the method with the fewest.

        None: all are begun, or what comes next waits for the end of a round.
        """
        trial = self._cut_off()
        if trial is None:
            trial = self._start_new()
        if trial:
            self.running.add(trial.key)
        return trial

    def is_done(self) -> bool:
        """Whether every trial has ended and there is no further one."""
        for trial in self.all_trials():
            if trial.key not in self.results:
                return False
        return self._plan_next() is None

    def _cut_off(self) -> Trial | None:
        for trial in self.all_trials():
            if trial.key in self.results or trial.key in self.running:
                continue
            # One that failed may have been opened again, and later rounds are halved against it.
            if self._has_history(trial.method, trial.number):
                return trial
        return None

    def _start_new(self) -> Trial | None:
        suggested = self._plan_next()
        if suggested is None:
            return None
        method_search, event = suggested
        trial = self._make_trial(method_search, event.number, event.values)
        # On disk before it runs: a process that dies now finds the trial cut off, not its number taken twice.
        self._journal.append(event)
        self._notes[trial.key] = event.notes
        self.trials[trial.key] = trial
        return trial

    def _plan_next(self) -> tuple[MethodSearch, TrialSuggested] | None:
        # Methods take turns, so a search that is cut off has spent as much on each.
        for method_search in sorted(self.method_searches, key=lambda m: len(self.trials_of(m.label))):
            event = self._plan_next_of(method_search)
            if event:
                return method_search, event
        return None

    def _plan_next_of(self, method_search: MethodSearch) -> TrialSuggested | None:
        """A method's next suggestion; None where there is none, or none yet."""
        label = method_search.label
        taken = {trial.number for trial in self.trials_of(label)}
        # The lowest that is free: of a journal that was damaged a suggestion may be lost, and is made again.
        number = next(number for number in itertools.count() if number not in taken)
        if number >= self.search.trials or not self._has_history(label, number) or self._is_spent(label, number):
            return None
        records = self.records(label, number)
        suggestion = self._samplers[label].suggest(number, records)
        if suggestion is None:
            return None
        history = []
        if self.search.learns:
            history = [record.score for record in records if not record.running]
        return TrialSuggested(
            definition=method_search.definition,
            method=label,
            number=number,
            values=suggestion.values,
            notes=suggestion.notes,
            history=history,
        )

    def _is_spent(self, label: str, number: int) -> bool:
        budget = self.search.trial_tasks
        return budget is not None and self.usage(label, before=number) >= budget

    def reopen_failed(self) -> None:
        """Have the trials that failed run again."""
        for trial in self.all_trials():
            result = self.results.get(trial.key)
            if result and result.status == "failed":
                del self.results[trial.key]
                self._journal.append(TrialReopened(**trial.identity))

    def record_complete(self) -> None:
        """Record the results of trials that were done, or told to stop, when the last process died before it could."""
        for trial in self.all_trials():
            if trial.key in self.results or not self._has_history(trial.method, trial.number):
                continue
            if self.halving.stopped_after(trial) is None and not _has_everything(trial):
                continue
            self.halving.decide_lost(trial, self._history(trial.method, trial.number))
            self.record_result(trial)

    def record_result(self, trial: Trial, problem: str = "") -> None:
        """Record how a trial ended, once: its journals say it, or the `problem` that its driver had."""
        self.running.discard(trial.key)
        if trial.key not in self.results:
            workers = self.planner.config.scaling.most_workers
            stopped_after = self.halving.stopped_after(trial)
            result = trial_result(trial, self.search, workers, self.gpus_per_worker, problem, stopped_after)
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
        if not is_complete(sequence, Store(folder_at(sequence.out))):
            return False
    # Another sequence may have made all that this one needs before this one has begun: its own journal is then empty.
    return tasks_done(trial.views()) == trial.num_tasks
