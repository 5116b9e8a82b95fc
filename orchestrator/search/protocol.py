"""The held-out protocol: tune each method where the evaluation never looks, freeze what was chosen, evaluate that."""

from __future__ import annotations

import contextlib
from typing import Any

from rich.console import Console

from orchestrator.cluster.resources import cluster
from orchestrator.config.experiment import RunConfig
from orchestrator.errors import SequenceFailed, UserError
from orchestrator.planning.experiment import open_experiment, stored_values
from orchestrator.retention import Retention, note_trial, reopen_trials
from orchestrator.run import exclusive_run, preflight, run_planned, warn_on
from orchestrator.search.choice import CHOSEN, evaluation_sequences, freeze, frozen_config, read_chosen, record_once
from orchestrator.search.definition import Search, prepare
from orchestrator.search.plots import draw
from orchestrator.search.report import print_choice
from orchestrator.search.results import save_tuning_results, search_results
from orchestrator.search.screen import SearchScreen
from orchestrator.search.trial_store import TrialStore
from orchestrator.store.records.search_events import SearchFinished, SearchFrozen, SearchStarted
from orchestrator.tracking import MlflowSync, close, sync_of


def tune_experiment(
    config: RunConfig, console: Console, retry_failed: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Both phases. Returns (what the report shows, what went wrong).

    Raises UserError before the first trial, and SequenceFailed where no trial of any method finished.
    """
    with preflight(config, warn_on(console)) as gpus_per_worker:
        search = prepare(config, gpus_per_worker > 0, warn_on(console))
        # `cluster_stack` keeps the Ray cluster, where the tuning needed one, for the evaluation.
        with exclusive_run(config, "search"), contextlib.ExitStack() as cluster_stack:
            trial_store = TrialStore(
                search.folder, search.settings, search.planner, search.method_searches, gpus_per_worker
            )
            if retry_failed:
                trial_store.reopen_failed()
            record_once(search.folder, SearchStarted(config=stored_values(config)))
            sync = sync_of(config, warn_on(console), search.folder)
            try:
                tuning_phase(search, trial_store, sync, console, cluster_stack)
                chosen = freezing(search, trial_store, console)
                problems = evaluation_phase(search, chosen, sync, console)
            finally:
                mlflow_behind = close(sync, config, warn_on(console))
            result = search_results(open_experiment(config.name, config.out))
            return result | {"mlflow_behind": mlflow_behind}, problems


def tuning_phase(
    search: Search,
    trial_store: TrialStore,
    sync: MlflowSync,
    console: Console,
    cluster_stack: contextlib.ExitStack,
) -> None:
    """Run the trials that are missing. Raises UserError where Ray Tune ended before them."""
    trial_store.record_complete()
    config = search.config
    retention = Retention(config.out, config.name, config.checkpoints.keep)
    noted: set[str] = set()
    with SearchScreen(trial_store, search.proof.statement, console) as screen:

        def watch() -> None:
            # A copy: Ray Tune's loop adds trials between two looks.
            for trial in list(trial_store.trials.values()):
                sync.follow(sequence.id for sequence in trial.sequences)
                if trial.key not in noted:
                    noted.add(trial.key)
                    note_trial(config.out, config.name, trial.sequences)
            retention.look()
            screen.show()

        watch()
        if trial_store.is_done():
            return
        reopen_trials(config.out, config.name)
        screen.say("starting Ray")
        resources = cluster_stack.enter_context(cluster())
        # Not before there is something to run: importing Ray Tune takes seconds.
        from orchestrator.search.ray_tune import run_trials

        screen.say("tuning")
        run_trials(trial_store, search.config.scaling, resources, watch, search.config.name)
        watch()
    if not trial_store.is_done():
        raise UserError("search: Ray Tune ended before all trials did; the same command goes on from here")


def freezing(search: Search, trial_store: TrialStore, console: Console) -> dict[str, Any]:
    """Freeze the choice and write the files of the tuning phase. Raises SequenceFailed where there is nothing to choose."""
    freeze(search, trial_store)
    # What is evaluated is what the file holds, not what this process remembers.
    chosen = read_chosen(search)
    files = [search.folder / CHOSEN]
    files += save_tuning_results(search.folder, search.description(), trial_store, chosen)
    files += draw(trial_store, search.folder)
    record_once(search.folder, SearchFrozen(sha256=chosen["sha256"], files=list(map(str, files))))
    print_choice(chosen, console, search.measure)
    if not chosen["methods"]:
        first = trial_store.all_trials()[0]
        reason = trial_store.results[first.key].reason
        raise SequenceFailed(f"no trial of any method finished, so nothing is evaluated; the first: {reason}")
    return chosen


def evaluation_phase(search: Search, chosen: dict[str, Any], sync: MlflowSync, console: Console) -> list[str]:
    """Evaluate the frozen choice. Returns what went wrong."""
    problems = [f"{label}: no trial finished, so it is not evaluated" for label in chosen["missing"]]
    frozen = frozen_config(search.config, chosen)
    result, run_problems = run_planned(frozen, evaluation_sequences(search, frozen, chosen), console, sync)
    unfinished = [sequence for sequence in result["sequences"] if sequence["status"] != "finished"]
    summary = search_results(open_experiment(frozen.name, frozen.out))["search"]["summary"]
    is_complete = not unfinished and not run_problems
    record_once(search.folder, SearchFinished(summary=summary, is_complete=is_complete))
    return problems + run_problems
