"""The trials of a search on Ray Tune: several at a time, each a Ray Train run of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from orchestrator.cluster.groups import run_on_cluster
from orchestrator.cluster.resources import Resources, max_concurrent_groups
from orchestrator.config.running import ScalingConfig
from orchestrator.config.search import SearchConfig
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.search.trial_store import TrialStore
from orchestrator.search.trials import Trial, metrics_after, score_of, tasks_done
from orchestrator.store.events import TrialProblem
from orchestrator.store.journal import Journal, Tail, journal_folder
from orchestrator.store.view import View

DRIVER_MEMORY = 64 * 2**20  # a trial's driver only waits; with a CPU each, two of them would starve their own workers


@dataclass(frozen=True)
class Running:
    """What a trial runs with."""

    search: SearchConfig
    scaling: ScalingConfig
    resources: Resources
    folder: str


def run_trials(
    trial_store: TrialStore, scaling: ScalingConfig, resources: Resources, watch: Callable[[], None], name: str
) -> None:
    """Run every trial that the book has to give; `watch` is called all the while. The book knows how each ended."""
    import logging

    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    search = trial_store.search
    running = Running(search, scaling, resources, str(trial_store.folder))
    max_concurrent = search.max_concurrent or max_concurrent_groups(scaling, resources)
    out = trial_store.planner.config.out
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_trial, running=running), {"memory": DRIVER_MEMORY}),
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            search_alg=_FromTrialStore(trial_store),
            scheduler=_PerMethodAsha(trial_store) if search.scheduler == "asha" else FIFOScheduler(),
            num_samples=-1,  # the searcher says when there are no more
            max_concurrent_trials=max_concurrent,
            trial_name_creator=lambda trial: trial.config["trial"],
            trial_dirname_creator=lambda trial: f"{trial.config['trial']}-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=f"{name}-search",
            storage_path=str(Path(out) / "ray"),
            verbose=0,
            callbacks=[_Watch(watch)],
            failure_config=tune.FailureConfig(
                max_failures=scaling.max_failures
            ),  # of a trial's driver, whose node died
        ),
    )
    tuner.fit()


class _Unpickled:
    """Ray Tune stores its parts to restore itself from. The book does that here, so they are stored empty."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _FromTrialStore(_Unpickled, Searcher):
    """Ray Tune's view of the book: gives its trials, and has it note how they ended."""

    def __init__(self, trial_store: TrialStore) -> None:
        super().__init__(metric="score", mode="max")
        self.trial_store, self.since = trial_store, time.time() * 1000
        self.started: dict[str, Trial] = {}

    def suggest(self, trial_id: str) -> Any:
        trial = self.trial_store.start_next()
        if trial is None:  # a trial that is stopped early may leave something of its method's budget
            return None if self.trial_store.running else Searcher.FINISHED
        self.started[trial_id] = trial
        sequences = [s.model_dump(mode="json") for s in trial.sequences]
        return {"trial": trial.key, "method": trial.method, "sequences": sequences}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial = self.started[trial_id]
        said = _problem(self.trial_store.folder, trial.key, self.since)
        self.trial_store.end(trial, said or ("its process died" if error else ""))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the book is on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the book is on disk."""


class _PerMethodAsha(_Unpickled, FIFOScheduler):
    """Asynchronous successive halving (arXiv 1810.05934) over finished tasks, a bracket for each method.

    Methods are not halved against each other: one that protects more looks worse early. What earlier trials reached counts
    again after a restart.
    """

    def __init__(self, trial_store: TrialStore) -> None:
        super().__init__()
        self.trial_store = trial_store
        self.brackets: dict[str, ASHAScheduler] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        return True

    def _bracket(self, trial: Any) -> ASHAScheduler:
        label = trial.config["method"]
        if label not in self.brackets:
            search = self.trial_store.search
            self.brackets[label] = ASHAScheduler(
                time_attr="tasks",
                metric="score",
                mode="max",
                max_t=max(t.tasks for t in self.trial_store.of(label)),
                grace_period=search.grace,
                reduction_factor=search.reduction,
                stop_last_trials=False,
            )
            for earlier in self.trial_store.of(label):
                if earlier.key in self.trial_store.ends:
                    self._replay(self.brackets[label], earlier)
        return self.brackets[label]

    def _replay(self, bracket: ASHAScheduler, trial: Trial) -> None:
        @dataclass
        class Stand:
            trial_id: str

        stand, views = Stand(trial.key), trial.views()
        bracket.on_trial_add(None, stand)  # type: ignore[arg-type]  # it asks for the id alone
        for rung in rungs(self.trial_store.search, trial.tasks):
            if tasks_done(views) >= rung:
                score = score_of(self.trial_store.search, metrics_after(views, rung))
                bracket.on_trial_result(None, stand, {"tasks": rung, "score": score})  # type: ignore[arg-type]

    def _has_rungs(self, trial: Any) -> bool:
        """Experts have one task each, so none of them is stopped."""
        return max(t.tasks for t in self.trial_store.of(trial.config["method"])) > self.trial_store.search.grace

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        if self._has_rungs(trial):
            self._bracket(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["tasks"] >= max(t.tasks for t in self.trial_store.of(trial.config["method"])):
            return str(TrialScheduler.CONTINUE)
        return str(self._bracket(trial).on_trial_result(tune_controller, trial, result))

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        if self._has_rungs(trial):
            self._bracket(trial).on_trial_remove(tune_controller, trial)


def rungs(search: SearchConfig, tasks: int) -> list[int]:
    """After how many tasks a trial waits for the scheduler's word: grace, then each time `reduction` times as many."""
    found: list[int] = []
    at = float(search.grace)
    while search.scheduler == "asha" and math.ceil(at) < tasks:
        found.append(math.ceil(at))
        at *= search.reduction
    return list(dict.fromkeys(found))


class _Watch(_Unpickled, tune.Callback):
    """Calls `watch` on every turn of Tune's loop."""

    def __init__(self, watch: Callable[[], None]) -> None:
        self.watch = watch

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.watch()


def _trial(config: dict[str, Any], running: Running) -> None:
    """A trial's driver: trains and scores its sequences up to each rung, and reports. Ends where Tune does not go on."""
    sequences = [SequencePlan.model_validate(values) for values in config["sequences"]]
    total = len(sequences[0].tasks)
    asked = sequences[0].evaluation.placement
    where = "inline" if asked == "auto" else asked  # whatever is free is for the next trial

    views = [View(s.id) for s in sequences]
    tails = [Tail(journal_folder(s.out, s.id)) for s in sequences]

    def watch() -> list[View]:
        for view, tail in zip(views, tails, strict=True):
            view.read(tail)
        return views

    for until in [*rungs(running.search, total), total]:
        scaling = running.scaling.model_copy(update={"max_concurrent": 1})
        problems = run_on_cluster(sequences, scaling, running.resources, where, watch, config["trial"], until)
        watch()
        if any(view.status == "failed" for view in views) or tasks_done(views) < until:
            if problems:
                Journal(Path(running.folder), f"problem-{config['trial']}").append(
                    TrialProblem(trial=config["trial"], reason=problems[0])
                )
            return
        tune.report({"tasks": until, "score": score_of(running.search, metrics_after(views, until))})


def _problem(folder: Path, key: str, since: float) -> str:
    """What a trial's driver said went wrong with the machinery in this run of the search."""
    events = (e for e in Tail(folder).new_events() if isinstance(e, TrialProblem))
    reasons = [e.reason for e in events if e.trial == key and e.time >= since]
    return reasons[-1] if reasons else ""
