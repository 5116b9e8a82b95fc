"""The trials of a search: proposed, run, ended, each a line in the search's journal; and the choice that follows from them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from collections.abc import Sequence as Many
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator import metrics
from orchestrator.checkpoint import Store
from orchestrator.config import MethodEntry, SearchConfig
from orchestrator.journal import Event, Journal, Tail, View, read_view
from orchestrator.loop import is_complete
from orchestrator.plan import Planner, Sequence
from orchestrator.proposals import Past, propose
from orchestrator.space import Space, Values, size_of, with_values


@dataclass(frozen=True)
class Trial:
    """One method with one choice of values, on every tuning stream with every tuning seed."""

    method: str
    number: int
    values: Values
    sequences: tuple[Sequence, ...] = field(repr=False)
    definition: str = ""

    @property
    def key(self) -> str:
        """Its name within the search."""
        return f"{self.method}-{self.number:03d}"

    @property
    def tasks(self) -> int:
        """Tasks of each of its sequences."""
        return len(self.sequences[0].tasks)

    def views(self) -> list[View]:
        """What its sequences' journals say."""
        return [read_view(s.out, s.id) for s in self.sequences]


@dataclass(frozen=True)
class Cost:
    """What a trial took. `tasks` counts what it asked for, `trained` what no other had trained before."""

    tasks: int
    trained: int
    seconds: float
    gpu_seconds: float


@dataclass(frozen=True)
class End:
    """How a trial ended: finished; stopped (by the scheduler, after `tasks`); or failed, with the reason."""

    status: str
    tasks: int
    score: float | None
    metrics: dict[str, float | None]
    cost: Cost
    reason: str = ""


def metrics_after(views: Many[View], tasks: int) -> dict[str, float | None]:
    """Means over a trial's sequences of the metrics after so many tasks, on the dev split; None where undefined."""
    rows = []
    for view in views:
        options_TT = view.matrix("score_options")[tasks, :tasks]
        row = metrics.summary(view.matrix(), view.test_sizes(), upto=tasks)
        if view.start and view.start["sequence"]["method"].get("bound"):
            row = dict.fromkeys(row, math.nan) | metrics.of_a_bound(row)
        rows.append(row | {"aa_options": float(np.mean(options_TT))})
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    return {key: None if math.isnan(value) else value for key, value in means.items()}


def score_of(search: SearchConfig, values: Mapping[str, float | None]) -> float:
    """What the search maximises. Raises ValueError where the metric does not apply to the model."""
    main, lost = values[search.metric], values["forgetting"] or 0.0
    if main is None:
        raise ValueError(f"search.metric: {search.metric} does not apply to models that generate their answers")
    return main - search.forgetting_weight * lost


def tasks_done(views: Many[View]) -> int:
    """Tasks that all of a trial's sequences have trained and scored."""

    def done(view: View) -> int:
        rows = (t for t in range(1, len(view.tasks) + 1) if not view.row_is_full(t))
        return next(rows, len(view.tasks) + 1) - 1

    return min(done(view) for view in views)


def cost_of(trial: Trial, views: Many[View], workers: int, gpus: float) -> Cost:
    """From the journals: training time of what the trial itself trained."""
    made = [task.checkpoint for view in views for task in view.by_task.values() if task.checkpoint]
    seconds = sum(event["seconds"] for event in made if not event["reused"])
    trained = sum(not event["reused"] for event in made)
    return Cost(len(made), trained, round(seconds, 2), round(seconds * workers * gpus, 2))


def ending(trial: Trial, search: SearchConfig, workers: int, gpus: float, problem: str = "") -> End:
    """How a trial that no longer runs ended, from its sequences' journals."""
    views = trial.views()
    cost = cost_of(trial, views, workers, gpus)
    done = tasks_done(views) if all(view.tasks for view in views) else 0
    # what went wrong around a trial that has all of its scores is no failure of the trial
    failure = next((view.failure for view in views if view.status == "failed"), "" if done == trial.tasks else problem)
    if failure or not done:
        return End("failed", done, None, {}, cost, failure or "it ended before its first task was done")
    found = metrics_after(views, done)
    try:
        score = score_of(search, found)
    except ValueError as error:
        return End("failed", done, None, {}, cost, str(error))
    return End("finished" if done == trial.tasks else "stopped", done, round(score, 6), found, cost)


@dataclass(frozen=True)
class Contender:
    """A method of the search: its space, and the name for everything that its trials depend on."""

    entry: MethodEntry
    space: Space
    definition: str

    @property
    def label(self) -> str:
        """The method's name."""
        return self.entry.label


class TrialBook:
    """All trials of a search, kept in a journal that outlives the process."""

    def __init__(
        self, folder: Path, search: SearchConfig, planner: Planner, contenders: Many[Contender], gpus: float = 0.0
    ) -> None:
        self.folder, self.search, self.planner, self.contenders, self.gpus = folder, search, planner, contenders, gpus
        self.trials: dict[str, Trial] = {}
        self.ends: dict[str, End] = {}
        self.running: set[str] = set()
        self._notes: dict[str, dict[str, Any]] = {}
        self._journal = Journal(folder, "trials")
        by_definition = {c.definition: c for c in contenders}
        for event in Tail(folder).new_events():
            contender = by_definition.get(event.get("definition", ""))
            if contender:  # else of a search that was defined differently
                self._take(event, contender)

    def _take(self, event: Event, contender: Contender) -> None:
        key = f"{contender.label}-{event['number']:03d}"
        if event["event"] == "trial_proposed":
            self.trials.setdefault(key, self._trial(contender, event["number"], event["values"]))
            self._notes[key] = event["notes"]
        elif event["event"] == "trial_reopened":
            self.ends.pop(key, None)
        elif event["event"] == "trial_ended" and key in self.trials:
            fields = {**event["end"], "cost": Cost(**event["end"]["cost"])}
            self.ends.setdefault(key, End(**fields))

    def _trial(self, contender: Contender, number: int, values: Values) -> Trial:
        config, search = self.planner.config, self.search
        method = with_values(contender.entry, values)
        key = f"{contender.label}-{number:03d}"
        name = f"{config.name}-{key}"
        root = search_key(config.name)
        above = ((root, f"{config.name}: search"), (trial_node(root, key, contender.definition), name))
        streams = [s.model_copy(update={"first": 1}) if search.select == "first-task" else s for s in search.streams]
        sequences = (
            sequence
            for stream in streams
            for seed in search.seeds
            for sequence in self.planner.sequences(method, stream, seed, "dev", f"{config.name}-{number:03d}-", above)
        )
        return Trial(contender.label, number, values, tuple(sequences), contender.definition)

    def all(self) -> list[Trial]:
        """Every method's trials, up to the number that is asked for: an earlier search may have had more."""
        return [t for t in list(self.trials.values()) if t.number < self.search.trials]

    def of(self, label: str) -> list[Trial]:
        """A method's trials, by number."""
        return sorted((t for t in self.all() if t.method == label), key=lambda t: t.number)

    def planned(self) -> int:
        """How many trials there will be; a small space may hold fewer than were asked for."""
        return sum(int(min(size_of(c.space), self.search.trials)) for c in self.contenders)

    def past(self, label: str) -> list[Past]:
        """A method's trials as the next proposal sees them."""
        found = []
        for trial in self.of(label):
            end = self.ends.get(trial.key)
            score = end.score if end and end.status == "finished" else None
            found.append(Past(trial.values, score, end is None, self._notes.get(trial.key, {})))
        return found

    def spent(self, label: str) -> int:
        """Tasks that a method's trials took; of those that have not ended, what they may take."""
        trials = self.of(label)
        return sum(self.ends[t.key].cost.tasks if t.key in self.ends else t.tasks * len(t.sequences) for t in trials)

    def start_next(self) -> Trial | None:
        """The trial to run now: one that was cut off, else a new one of the method with the fewest. None: all are begun."""
        trial = self._cut_off()
        if trial is None and (planned := self._plan_next()):
            trial, notes = planned
            self._append("trial_proposed", trial, values=trial.values, notes=notes)
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
        for contender in sorted(self.contenders, key=lambda c: len(self.of(c.label))):
            number = len(self.of(contender.label))
            budget = self.search.trial_tasks
            if number >= self.search.trials or (budget and self.spent(contender.label) >= budget):
                continue
            proposal = propose(self.search, contender.space, number, self.past(contender.label))
            if proposal is None:
                continue
            return self._trial(contender, number, proposal.values), proposal.notes
        return None

    def reopen_failed(self) -> None:
        """Have the trials that failed run again."""
        for trial in self.all():
            if trial.key in self.ends and self.ends[trial.key].status == "failed":
                del self.ends[trial.key]
                self._append("trial_reopened", trial)

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
        end = ending(trial, self.search, self.planner.config.scaling.workers, self.gpus, problem)
        if trial.key not in self.ends:
            self.ends[trial.key] = end
            self._append("trial_ended", trial, end=asdict(end))

    def _append(self, event: str, trial: Trial, **values: Any) -> None:
        place = {"definition": trial.definition, "method": trial.method, "number": trial.number}
        self._journal.append({"event": event, **place, **values})

    def best(self, label: str) -> Trial | None:
        """The finished trial with the highest score; of equal ones the first. None where none finished."""
        finished = [t for t in self.of(label) if t.key in self.ends and self.ends[t.key].status == "finished"]
        return max(finished, key=lambda t: (self.ends[t.key].score, -t.number), default=None)

    def fingerprint(self) -> str:
        """SHA-256 over every trial and how it ended."""
        rows = [
            [t.key, t.values, self.ends[t.key].status, self.ends[t.key].score]
            for c in self.contenders
            for t in self.of(c.label)
            if t.key in self.ends
        ]
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def search_key(name: str) -> str:
    """Names the search's run in MLflow."""
    return f"search:{name}"


def trial_node(root: str, key: str, definition: str) -> str:
    """Names a trial's run in MLflow. A search that is defined anew under its old name has other trials."""
    return f"{root}/{key}-{definition[:8]}"
