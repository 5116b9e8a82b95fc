"""The trials of a search on Ray Tune: several at a time, each a Ray Train run of its own."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Read by ray.tune when it is imported: its own table and warnings give way to ours.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # a trial that failed has no score to report
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends the search, not just the tuning phase
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")

from orchestrator.train import Resources, groups_at_once, run_on_cluster  # isort: skip  # sets Ray's variables

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from orchestrator.config import ScalingConfig, SearchConfig
from orchestrator.journal import Journal, Tail, View, journal_folder
from orchestrator.plan import Sequence
from orchestrator.trials import Trial, TrialBook, metrics_after, score_of, tasks_done

DRIVER_MEMORY = 64 * 2**20  # a trial's driver only waits; with a CPU each, two of them would starve their own workers


@dataclass(frozen=True)
class Running:
    """What a trial runs with."""

    search: SearchConfig
    scaling: ScalingConfig
    resources: Resources
    folder: str


def run_trials(
    book: TrialBook, scaling: ScalingConfig, resources: Resources, watch: Callable[[], None], name: str
) -> None:
    """Run every trial that the book has to give; `watch` is called all the while. The book knows how each ended."""
    import logging

    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    search = book.search
    running = Running(search, scaling, resources, str(book.folder))
    at_once = search.at_once or groups_at_once(scaling, resources)
    out = book.planner.config.out
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_trial, running=running), {"memory": DRIVER_MEMORY}),
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            search_alg=_FromBook(book),
            scheduler=_PerMethodAsha(book) if search.scheduler == "asha" else FIFOScheduler(),
            num_samples=-1,  # the searcher says when there are no more
            max_concurrent_trials=at_once,
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


class _FromBook(_Unpickled, Searcher):
    """Ray Tune's view of the book: gives its trials, and has it note how they ended."""

    def __init__(self, book: TrialBook) -> None:
        super().__init__(metric="score", mode="max")
        self.book, self.since = book, time.time() * 1000
        self.started: dict[str, Trial] = {}

    def suggest(self, trial_id: str) -> Any:
        trial = self.book.start_next()
        if trial is None:  # a trial that is stopped early may leave something of its method's budget
            return None if self.book.running else Searcher.FINISHED
        self.started[trial_id] = trial
        sequences = [s.model_dump(mode="json") for s in trial.sequences]
        return {"trial": trial.key, "method": trial.method, "sequences": sequences}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial = self.started[trial_id]
        said = _problem(self.book.folder, trial.key, self.since)
        self.book.end(trial, said or ("its process died" if error else ""))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the book is on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the book is on disk."""


class _PerMethodAsha(_Unpickled, FIFOScheduler):
    """Asynchronous successive halving (arXiv 1810.05934) over finished tasks, a bracket for each method.

    Methods are not halved against each other: one that protects more looks worse early. What earlier trials reached counts
    again after a restart.
    """

    def __init__(self, book: TrialBook) -> None:
        super().__init__()
        self.book = book
        self.brackets: dict[str, ASHAScheduler] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        return True

    def _bracket(self, trial: Any) -> ASHAScheduler:
        label = trial.config["method"]
        if label not in self.brackets:
            search = self.book.search
            self.brackets[label] = ASHAScheduler(
                time_attr="tasks",
                metric="score",
                mode="max",
                max_t=max(t.tasks for t in self.book.of(label)),
                grace_period=search.grace,
                reduction_factor=search.reduction,
                stop_last_trials=False,
            )
            for earlier in self.book.of(label):
                if earlier.key in self.book.ends:
                    self._replay(self.brackets[label], earlier)
        return self.brackets[label]

    def _replay(self, bracket: ASHAScheduler, trial: Trial) -> None:
        @dataclass
        class Stand:
            trial_id: str

        stand, views = Stand(trial.key), trial.views()
        bracket.on_trial_add(None, stand)  # type: ignore[arg-type]  # it asks for the id alone
        for rung in rungs(self.book.search, trial.tasks):
            if tasks_done(views) >= rung:
                score = score_of(self.book.search, metrics_after(views, rung))
                bracket.on_trial_result(None, stand, {"tasks": rung, "score": score})  # type: ignore[arg-type]

    def _has_rungs(self, trial: Any) -> bool:
        """Experts have one task each, so none of them is stopped."""
        return max(t.tasks for t in self.book.of(trial.config["method"])) > self.book.search.grace

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        if self._has_rungs(trial):
            self._bracket(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["tasks"] >= max(t.tasks for t in self.book.of(trial.config["method"])):
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
    sequences = [Sequence.model_validate(values) for values in config["sequences"]]
    total = len(sequences[0].tasks)
    asked = sequences[0].evaluation.where
    where = "inline" if asked == "auto" else asked  # whatever is free is for the next trial

    views = [View(s.id) for s in sequences]
    tails = [Tail(journal_folder(s.out, s.id)) for s in sequences]

    def watch() -> list[View]:
        for view, tail in zip(views, tails, strict=True):
            for event in tail.new_events():
                view.add(event)
        return views

    for until in [*rungs(running.search, total), total]:
        scaling = running.scaling.model_copy(update={"at_once": 1})
        problems = run_on_cluster(sequences, scaling, running.resources, where, watch, config["trial"], until)
        watch()
        if any(view.status == "failed" for view in views) or tasks_done(views) < until:
            if problems:
                Journal(Path(running.folder), f"problem-{config['trial']}").append(
                    {"event": "trial_problem", "trial": config["trial"], "reason": problems[0]}
                )
            return
        tune.report({"tasks": until, "score": score_of(running.search, metrics_after(views, until))})


def _problem(folder: Path, key: str, since: float) -> str:
    """What a trial's driver said went wrong with the machinery in this run of the search."""
    events = (e for e in Tail(folder).new_events() if e["event"] == "trial_problem")
    said = [e["reason"] for e in events if e["trial"] == key and e["time"] >= since]
    return str(said[-1]) if said else ""
