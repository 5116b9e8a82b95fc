"""The trials of a search on Ray Tune: several at a time, each a job of a group of Ray Train workers that stay.

Ray Tune runs and stops trials. Which there are, and how they ended, the trial store knows: Tune asks it for each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from orchestrator import interruption, logs
from orchestrator.cluster.groups import run_on_cluster
from orchestrator.cluster.resources import Resources, gpus_per_worker, max_concurrent_groups, ray_storage
from orchestrator.cluster.warm_groups import JobAtWork, warm_groups
from orchestrator.config.running import ScalingConfig
from orchestrator.config.search import SearchConfig
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.search.decisions.halving import rungs
from orchestrator.search.trial_store import TrialStore
from orchestrator.search.trials import Trial, score_after, tasks_done
from orchestrator.storage.places import folder_at
from orchestrator.store.journal import Journal, Tail, journal_folder
from orchestrator.store.records.search_events import TrialProblem
from orchestrator.store.view import View

DRIVER_MEMORY = 64 * 2**20  # a trial's driver only waits; with a CPU each, two of them would starve their own workers


@dataclass(frozen=True)
class DriverSettings:
    """What every trial's driver is given.

    `folder` is the search's, where a driver writes what went wrong around it; `queue` the actor that groups take jobs from.
    """

    search: SearchConfig
    scaling: ScalingConfig
    resources: Resources
    folder: str
    queue: Any


def run_trials(
    trial_store: TrialStore, scaling: ScalingConfig, resources: Resources, watch: Callable[[], None], name: str
) -> None:
    """Run every trial that the trial store has to give, and have it record how each ended.

    `watch` is called all the while.
    """
    # of a driver that dies the trial store knows, and the screen has a line where it is not made good
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    search = trial_store.search
    out = trial_store.planner.config.out
    most = search.max_concurrent or max_concurrent_groups(scaling, resources)
    groups = max(1, min(most, trial_store.num_planned() - len(trial_store.results)))
    gpus = gpus_per_worker(scaling, resources)
    # within: the groups are given time to leave, and Ray Tune, which could not give it, is not interrupted at any moment
    with warm_groups(f"{name}-search", groups, out, scaling, gpus) as queue, interruption.deferred():
        settings = DriverSettings(search, scaling, resources, str(trial_store.folder), queue)
        _tuner(trial_store, settings, watch, name, most).fit()


def _tuner(
    trial_store: TrialStore, settings: DriverSettings, watch: Callable[[], None], name: str, most: int
) -> tune.Tuner:
    driver = tune.with_resources(tune.with_parameters(_drive_trial, settings=settings), {"memory": DRIVER_MEMORY})
    scheduler = FIFOScheduler()
    if settings.search.scheduler == "asha":
        scheduler = JournalledAsha(trial_store)
    tune_config = tune.TuneConfig(
        metric="score",
        mode="max",
        search_alg=_FromTrialStore(trial_store),
        scheduler=scheduler,
        num_samples=-1,  # the searcher says when there are no more
        max_concurrent_trials=most,
        # a new process for each would have to import all of this first
        reuse_actors=True,
        trial_name_creator=lambda trial: trial.config["trial"],
        trial_dirname_creator=lambda trial: f"{trial.config['trial']}-{trial.trial_id}",
    )
    run_config = tune.RunConfig(
        name=f"{name}-search",
        **ray_storage(trial_store.planner.config.out),
        verbose=0,
        callbacks=[_Watch(watch)],
        # Of a trial's driver, whose node died. A trial that fails by itself says so in its journal.
        failure_config=tune.FailureConfig(max_failures=settings.scaling.max_failures),
    )
    return tune.Tuner(driver, tune_config=tune_config, run_config=run_config)


class _StoredEmpty:
    """Ray Tune pickles its parts to restore itself from. Here the trial store does that, and open files do not pickle."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _FromTrialStore(_StoredEmpty, Searcher):
    """Ray Tune's view of the trial store: gives its trials, and has it record how they ended."""

    def __init__(self, trial_store: TrialStore) -> None:
        super().__init__(metric="score", mode="max")
        self.trial_store = trial_store
        self.tail = Tail(trial_store.folder)
        # what is there already is of earlier runs of the search
        list(self.tail.new_events())
        self.problems: dict[str, str] = {}
        self.started: dict[str, Trial] = {}

    def suggest(self, trial_id: str) -> Any:
        trial = self.trial_store.start_next()
        if trial is None:
            # While some run there may still be one: the next round begins when they have ended, and a trial that is stopped
            # early leaves something of its method's budget.
            return None if self.trial_store.running else Searcher.FINISHED
        self.started[trial_id] = trial
        sequences = [sequence.model_dump(mode="json") for sequence in trial.sequences]
        return {"trial": trial.key, "method": trial.method, "sequences": sequences}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial = self.started[trial_id]
        self._read_problems()
        problem = self.problems.get(trial.key, "")
        if error and not problem:
            problem = "its process died"
        self.trial_store.record_result(trial, problem)

    def _read_problems(self) -> None:
        """Note what trials' drivers said last went wrong with the machinery in this run of the search."""
        for event in self.tail.new_events():
            if isinstance(event, TrialProblem):
                self.problems[event.trial] = event.reason

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the trial store is on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the trial store is on disk."""


class JournalledAsha(_StoredEmpty, FIFOScheduler):
    """Stops trials at rungs of finished tasks, as the trial store decides (see `orchestrator.search.decisions.halving.goes_on`).

    Ray's own `ASHAScheduler` decides by the order in which results arrive, which no second run repeats, and forgets it.
    """

    def __init__(self, trial_store: TrialStore) -> None:
        super().__init__()
        self.trial_store = trial_store

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        own = self.trial_store.trials[trial.config["trial"]]
        # A trial that is through is finished, not stopped.
        if result["tasks"] >= own.num_tasks or self.trial_store.passes_rung(own, result["tasks"], result["score"]):
            return str(TrialScheduler.CONTINUE)
        return str(TrialScheduler.STOP)


class _Watch(_StoredEmpty, tune.Callback):
    """Calls `watch` on every turn of Tune's loop."""

    def __init__(self, watch: Callable[[], None]) -> None:
        self.watch = watch

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.watch()
        if interruption.was_asked():
            raise KeyboardInterrupt


def _drive_trial(config: dict[str, Any], settings: DriverSettings) -> None:
    """A trial's driver: trains and scores its sequences up to each rung, and reports. Ends where Tune does not go on."""
    sequences = []
    views = []
    tails = []
    for values in config["sequences"]:
        sequence = SequencePlan.model_validate(values)
        sequences.append(sequence)
        views.append(View(sequence.id))
        tails.append(Tail(journal_folder(sequence.out, sequence.id)))
    num_tasks = len(sequences[0].tasks)

    def watch() -> list[View]:
        for view, tail in zip(views, tails, strict=True):
            view.read(tail)
        return views

    placement = sequences[0].evaluation.placement
    if placement == "auto":
        placement = "inline"  # whatever is free is for the next trial
    # A trial's own sequences run one after the other: trials are what runs side by side.
    scaling = settings.scaling.model_copy(update={"max_concurrent": 1})
    log = logs.trial_log(sequences[0].out, config["trial"])
    with logs.to_file(log), logs.failures_to(log, f"trial {config['trial']}"):
        for until_task in [*rungs(settings.search, num_tasks), num_tasks]:
            problems = run_on_cluster(
                sequences,
                scaling,
                settings.resources,
                placement,
                watch,
                config["trial"],
                until_task,
                give=partial(JobAtWork, settings.queue),
            )
            watch()
            failed = [view for view in views if view.status == "failed"]
            if failed or tasks_done(views) < until_task:
                # What a sequence says of itself is in its journal; what the machinery says around it would be lost.
                if problems:
                    _record_problem(folder_at(settings.folder), config["trial"], problems[0])
                return
            tune.report({"tasks": until_task, "score": score_after(settings.search, views, until_task)})


def _record_problem(folder: Path, key: str, reason: str) -> None:
    # A file for each trial: no two drivers append to one.
    Journal(folder, f"problem-{key}").append(TrialProblem(trial=key, reason=reason))
