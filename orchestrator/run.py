"""One experiment from the configuration to the table."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.cluster.groups import run_on_cluster
from orchestrator.cluster.resources import (
    cluster,
    cluster_is_running,
    gpus_per_worker,
    local_resources,
    max_concurrent_groups,
)
from orchestrator.config.experiment import RunConfig
from orchestrator.errors import UserError
from orchestrator.planning.experiment import Experiment, check_writable, is_search_folder, tracking_uri
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.report.csv_files import write_csv
from orchestrator.report.results import results
from orchestrator.report.screen import Screen
from orchestrator.store.checkpoints import Store
from orchestrator.store.journal import Journal, Tail, journal_folder
from orchestrator.store.view import View
from orchestrator.tracking import MlflowSync, check_uri

SYNC_SECONDS = 120


class Watcher:
    """Follows the journals of an experiment."""

    def __init__(self, experiment: Experiment, screen: Screen) -> None:
        self.screen = screen
        self.views = [View(s.id) for s in experiment.sequences]
        self.tails = [Tail(journal_folder(s.out, s.id)) for s in experiment.sequences]

    def look(self) -> list[View]:
        """Read what is new, show it, and give all that is known."""
        for view, tail in zip(self.views, self.tails, strict=True):
            view.read(tail)
        self.screen.show(self.views)
        return self.views


@contextlib.contextmanager
def preflight(config: RunConfig) -> Iterator[float]:
    """See that the machines, the output folder and the tracking server serve; gives the GPUs that each worker will have.

    Raises UserError before anything was trained. In a submitted job the cluster decides, so it is connected meanwhile; on
    this machine nothing is started yet.
    """
    check_writable(config.out)
    if config.tracking.uri:
        check_uri(config.tracking.uri)
    with cluster() if cluster_is_running() else contextlib.nullcontext(local_resources()) as found:
        max_concurrent_groups(config.scaling, found)
        yield gpus_per_worker(config.scaling, found)


def run_experiment(config: RunConfig, console: Console) -> tuple[dict[str, Any], list[str]]:
    """Check everything, train and score what is missing, mirror it to MLflow. Returns (results, what went wrong).

    Raises UserError before anything was trained.
    """
    if is_search_folder(config.out, config.name):
        raise UserError(f"name: {config.name!r} in {config.out!r} is a search; give this experiment another name")
    with preflight(config) as gpus:
        return run_planned(config, plan(config, gpus > 0), console)


def run_planned(
    config: RunConfig, sequences: list[SequencePlan], console: Console, sync: MlflowSync | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Train and score what is missing of sequences that were planned, and mirror it to MLflow.

    A `mirror` that is given follows the sequences too, and is left open.
    """
    experiment = Experiment(config, tuple(sequences))
    problems: list[str] = []
    behind = None
    with exclusive_run(experiment.config), Screen(sequences, console) as screen:
        experiment.save()
        own = None if sync else sync_of(config)
        (sync or own).follow(s.id for s in sequences)  # type: ignore[union-attr]  # one of the two is there
        watcher = Watcher(experiment, screen)
        todo = _replay_complete(watcher, experiment)
        if todo:
            problems += _train(todo, experiment, watcher)
        watcher.look()
        if own:
            screen.say("writing the last records to MLflow")
            behind = close(own)
    result = results(experiment) | {"mlflow_behind": behind}
    write_csv(experiment, result)
    return result, problems


@contextlib.contextmanager
def exclusive_run(config: RunConfig, kind: str = "experiment") -> Iterator[None]:
    """One process at a time writes an experiment's scores and its copy in MLflow. Raises UserError for a second one."""
    with Store(Path(config.out)).lock(f"{kind}-{config.name}", timeout=0) as mine:
        if not mine:
            raise UserError(f"{kind} {config.name!r} in {config.out!r} is being run by another process")
        yield


def _train(todo: list[SequencePlan], experiment: Experiment, watcher: Watcher) -> list[str]:
    config = experiment.config
    watcher.screen.say(f"starting Ray for {len(todo)} sequence{'s' if len(todo) > 1 else ''}")
    watcher.look()
    with cluster() as resources:
        watcher.screen.say("starting the workers")
        wanted = {s.id for s in todo}

        def look() -> list[View]:
            views = [view for view in watcher.look() if view.id in wanted]
            if any(view.status == "running" for view in views):
                watcher.screen.say("training")
            return views

        return run_on_cluster(todo, config.scaling, resources, config.evaluation.placement, look, config.name)


def _replay_complete(watcher: Watcher, experiment: Experiment) -> list[SequencePlan]:
    """Sequences of which something is missing. Those whose states and cells are all there are noted without Ray."""
    from orchestrator.training.sequence import is_complete, run_sequence

    todo = []
    for sequence, view in zip(experiment.sequences, watcher.look(), strict=True):
        if not is_complete(sequence, Store(Path(sequence.out))):
            todo.append(sequence)
        elif view.status != "finished" or not all(view.has_all_scores(row) for row in range(len(sequence.keys))):
            run_sequence(sequence)
    return todo


def sync_of(config: RunConfig, search: Path | None = None) -> MlflowSync:
    """The copy in MLflow of an experiment, and of the search whose folder is given."""
    name = config.tracking.experiment or config.name
    return MlflowSync(tracking_uri(config), name, config.out, search)


def close(sync: MlflowSync) -> str | None:
    """None, or a line that says that the copy is not complete: no failure, since the journals are."""
    if sync.close(SYNC_SECONDS):
        return None
    why = f": {sync.trouble}" if sync.trouble else ""
    return f"MLflow at {sync.uri} is behind the journals{why}. Run the same command again to copy the rest."


def evaluate_experiment(experiment: Experiment, console: Console) -> tuple[dict[str, Any], list[str]]:
    """Score every state that is in the store, in this process."""
    from orchestrator.evaluation.scores import missing_scores, score_events
    from orchestrator.training.sequence import score_state

    with exclusive_run(experiment.config), Screen(experiment.sequences, console) as screen:
        sync = sync_of(experiment.config)
        sync.follow(s.id for s in experiment.sequences)
        watcher = Watcher(experiment, screen)
        for sequence in experiment.sequences:
            store = Store(Path(sequence.out))
            journal = Journal(journal_folder(sequence.out, sequence.id), "evaluate")
            for row, key in enumerate(sequence.keys):
                if row > 0 and not store.has(key):
                    continue
                if missing_scores(sequence, row, store):
                    screen.say(f"scoring {sequence.id} after task {row}")
                    score_state(sequence, row)
                view = next(v for v in watcher.look() if v.id == sequence.id)
                if view.start and not view.has_all_scores(row):
                    for event in score_events(sequence, row, store):
                        journal.append(event)
        watcher.look()
        behind = close(sync)
    result = results(experiment) | {"mlflow_behind": behind}
    write_csv(experiment, result)
    return result, []
