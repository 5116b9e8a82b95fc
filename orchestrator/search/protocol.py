"""The held-out protocol: tune each method where the evaluation never looks, freeze what was chosen, evaluate that."""

from __future__ import annotations

import contextlib
from typing import Any

from rich.console import Console

from orchestrator.cluster.resources import cluster
from orchestrator.config.experiment import RunConfig
from orchestrator.errors import SequenceFailed, UserError
from orchestrator.planning.experiment import open_experiment
from orchestrator.run import close, exclusive_run, preflight, run_planned, sync_of
from orchestrator.search.choice import evaluation_sequences, freeze, frozen_config, read_chosen, record
from orchestrator.search.definition import Search, prepare
from orchestrator.search.report import print_choice
from orchestrator.search.results import save_phase_1, search_results
from orchestrator.search.screen import SearchScreen
from orchestrator.search.trial_store import TrialStore
from orchestrator.store.events import SearchFinished, SearchFrozen, SearchStarted
from orchestrator.tracking import MlflowSync


def tune_experiment(
    config: RunConfig, console: Console, retry_failed: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Both phases. Returns (what the report shows, what went wrong).

    Raises UserError before the first trial, and SequenceFailed where no trial of any method finished.
    """
    with preflight(config) as gpus:
        search = prepare(config, gpus > 0)
        with exclusive_run(config, "search"), contextlib.ExitStack() as kept_open:
            trial_store = TrialStore(search.folder, search.settings, search.planner, search.method_searches, gpus)
            if retry_failed:
                trial_store.reopen_failed()
            record(search, SearchStarted(config=config.model_dump(mode="json")))
            sync = sync_of(config, search.folder)
            try:
                _run_phase_1(search, trial_store, sync, console, kept_open)
                problems = _run_phase_2(search, trial_store, sync, console)
            finally:
                behind = close(sync)
            return search_results(open_experiment(config.name, config.out)) | {"mlflow_behind": behind}, problems


def _run_phase_2(search: Search, trial_store: TrialStore, sync: MlflowSync, console: Console) -> list[str]:
    """Freeze the choice and evaluate it. Returns what went wrong."""
    freeze(search, trial_store)
    chosen = read_chosen(search)
    files = save_phase_1(search, trial_store, chosen)
    record(search, SearchFrozen(sha256=chosen["sha256"], files=[str(f) for f in files]))
    print_choice(chosen, console)
    if not chosen["methods"]:
        reason = trial_store.ends[trial_store.all()[0].key].reason
        raise SequenceFailed(f"no trial of any method finished, so nothing is evaluated; the first: {reason}")
    problems = [f"{label}: no trial finished, so it is not evaluated" for label in chosen["missing"]]
    frozen = frozen_config(search.config, chosen)
    result, more = run_planned(frozen, evaluation_sequences(search, frozen, chosen), console, sync)
    if not more and all(s["status"] == "finished" for s in result["sequences"]):
        summary = search_results(open_experiment(frozen.name, frozen.out))["search"]["summary"]
        record(search, SearchFinished(summary=summary))
    return problems + more


def _run_phase_1(
    search: Search, trial_store: TrialStore, sync: MlflowSync, console: Console, kept_open: contextlib.ExitStack
) -> None:
    """Run the trials that are missing. `kept_open` keeps the Ray cluster, where one was needed, for the second phase."""
    trial_store.end_complete()
    with SearchScreen(trial_store, search.proof.statement, console) as screen:

        def watch() -> None:
            sync.follow(s.id for trial in list(trial_store.trials.values()) for s in trial.sequences)
            screen.show()

        watch()
        if trial_store.is_done():
            return
        screen.say("starting Ray")
        resources = kept_open.enter_context(cluster())
        from orchestrator.search.ray_tune import run_trials

        screen.say("tuning")
        run_trials(trial_store, search.config.scaling, resources, watch, search.config.name)
        watch()
    if not trial_store.is_done():
        raise UserError("search: Ray Tune ended before all trials did; the same command goes on from here")
