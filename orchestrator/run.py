"""One experiment from its configuration to its table."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from rich.console import Console

from orchestrator import interruption, logs
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
from orchestrator.evaluation.columns import is_complete, lacks_columns, missing_columns, note_columns
from orchestrator.planning.experiment import Experiment, check_writable, is_search_folder, tracking_uri
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.report.csv_files import write_csv_or_say
from orchestrator.report.references import record_references
from orchestrator.report.results import results
from orchestrator.report.screen import Screen
from orchestrator.retention import Retention, states_to_make_again
from orchestrator.storage.places import folder_at
from orchestrator.store import events
from orchestrator.store.checkpoints import Store
from orchestrator.store.journal import DamagedLine, Journal, Tail, damage_line, journal_folder
from orchestrator.store.view import View
from orchestrator.tracking import MlflowSync, check_uri, close, sync_of
from orchestrator.training.scoring import StateScorer
from orchestrator.training.sequence import run_sequence

logger = logging.getLogger(__name__)


class Watcher:
    """Follows the journals of an experiment."""

    def __init__(self, experiment: Experiment, screen: Screen) -> None:
        self.screen = screen
        self.views: list[View] = []
        self.tails: list[Tail] = []
        self.shows_damage = False
        for sequence in experiment.sequences:
            self.views.append(View(sequence.id))
            self.tails.append(Tail(journal_folder(sequence.out, sequence.id)))

    def look(self) -> list[View]:
        """Read what is new, show it, and give all that is known."""
        for view, tail in zip(self.views, self.tails, strict=True):
            view.read(tail)
        self._show_damage()
        self.screen.show(self.views)
        return self.views

    def look_at(self, number: int) -> None:
        """Read what is new of one sequence, and show it if there is anything."""
        tail = self.tails[number]
        if tail.has_news():
            self.views[number].read(tail)
            self.screen.show(self.views)

    def _show_damage(self) -> None:
        damaged: list[DamagedLine] = []
        for tail in self.tails:
            damaged += tail.damaged
        # once, not at each look; a line that is damaged meanwhile is in the report
        if damaged and not self.shows_damage:
            self.shows_damage = True
            self.screen.console.print(damage_line(damaged), style="yellow", highlight=False, soft_wrap=True)


@contextlib.contextmanager
def preflight(config: RunConfig, warn: Callable[[str], None]) -> Iterator[float]:
    """See that the machines, the output folder and the tracking server serve; gives the GPUs that each worker will have.

    Raises UserError before anything was trained. A tracking server that is down is warned of: only the copy waits for it.
    In a submitted job the cluster decides, so it is connected meanwhile; on this machine nothing is started yet.
    """
    check_writable(config.out)
    # the default is a file in the folder that was just looked at
    if config.tracking.uri:
        line = check_uri(tracking_uri(config))
        if line:
            warn(f"{line}; it trains all the same, and the records are copied when it does")
    with contextlib.ExitStack() as connected:
        if cluster_is_running():
            resources = connected.enter_context(cluster())
        else:
            resources = local_resources()
        max_concurrent_groups(config.scaling, resources)
        yield gpus_per_worker(config.scaling, resources)


def run_experiment(config: RunConfig, console: Console) -> tuple[dict[str, Any], list[str]]:
    """Check everything, train and score what is missing, copy it to MLflow. Returns (results, what went wrong).

    Raises UserError before anything was trained.
    """
    if is_search_folder(config.out, config.name):
        raise UserError(f"name: {config.name!r} in {config.out!r} is a search; give this experiment another name")
    complete: set[str] = set()

    def is_done(sequences: Sequence[SequencePlan]) -> bool:
        for sequence in sequences:
            if is_complete(sequence, Store(folder_at(sequence.out))):
                complete.add(sequence.id)
        return len(complete) == len(sequences)

    # of an experiment that is new, a mistake must be told before all of its data is read
    was_planned = Experiment(config, ()).is_saved()
    with preflight(config, warn_on(console)) as gpus:
        sequences = plan(config, gpus > 0, warn_on(console), is_done if was_planned else None)
        return run_planned(config, sequences, console, complete=complete)


def warn_on(console: Console) -> Callable[[str], None]:
    """A function that prints a warning in a line of its own."""

    def warn(line: str) -> None:
        console.print(f"warning: {line}", style="yellow", highlight=False, soft_wrap=True)

    return warn


def run_planned(
    config: RunConfig,
    sequences: list[SequencePlan],
    console: Console,
    sync: MlflowSync | None = None,
    complete: Collection[str] = (),
) -> tuple[dict[str, Any], list[str]]:
    """Train and score what is missing of sequences that were planned, and copy it to MLflow.

    A `sync` that is given follows the sequences too, and is left open. `complete`: the ids of those that lack no state or score.
    """
    experiment = Experiment(config, tuple(sequences))
    problems: list[str] = []
    behind = None
    with exclusive_run(config), Screen(sequences, console) as screen:
        # before anything is trained: `report` and `evaluate` must find the plan of a run that was killed
        experiment.save()
        own_sync = None
        if sync is None:
            sync = own_sync = sync_of(config, warn_on(console))
        sync.follow(sequence.id for sequence in sequences)
        watcher = Watcher(experiment, screen)
        incomplete = _replay_complete(watcher, experiment, complete)
        logger.info("%d of %d sequences are complete", len(sequences) - len(incomplete), len(sequences))
        retention = Retention(config.out, config.name, config.checkpoints.keep)
        if incomplete:
            sync.expect_news()
            _tell_states_to_make_again(incomplete, console)
            problems += _train(incomplete, experiment, watcher, retention)
        watcher.look()
        retention.prune()
        result = results(experiment)
        record_references(config.out, result["sequences"])
        # one that was given is the search's, which goes on to use it
        if own_sync:
            screen.say("writing the last records to MLflow")
            behind = close(own_sync, config, screen.say)
    result["mlflow_behind"] = behind
    problems += write_csv_or_say(experiment, result)
    return result, problems


@contextlib.contextmanager
def exclusive_run(config: RunConfig, kind: str = "experiment") -> Iterator[None]:
    """One process at a time writes an experiment's scores and its copy in MLflow. Raises UserError for a second one."""
    # not waited for: who gave one command twice wants to know it now
    with Store(folder_at(config.out)).lock(f"{kind}-{config.name}", timeout=0) as locked:
        if not locked:
            raise UserError(f"{kind} {config.name!r} in {config.out!r} is being run by another process")
        yield


def _tell_states_to_make_again(incomplete: list[SequencePlan], console: Console) -> None:
    again = states_to_make_again(incomplete, Store(folder_at(incomplete[0].out)))
    if again:
        states = "1 state that was pruned is" if again == 1 else f"{again} states that were pruned are"
        warn_on(console)(f"{states} trained again, on the way to what is missing")


def _train(incomplete: list[SequencePlan], experiment: Experiment, watcher: Watcher, retention: Retention) -> list[str]:
    """Train and score sequences on a cluster. Returns what went wrong with the machinery, a line each."""
    config = experiment.config
    plural = "s" if len(incomplete) > 1 else ""
    watcher.screen.say(f"starting Ray for {len(incomplete)} sequence{plural}")
    watcher.look()
    ids = set()
    for sequence in incomplete:
        ids.add(sequence.id)

    def watch() -> list[View]:
        retention.look()
        if interruption.was_asked():
            watcher.screen.say("stopping: the workers write what they have; once more to stop at once")
        views = []
        for view in watcher.look():
            if view.id in ids:
                views.append(view)
                if view.status == "running" and not interruption.was_asked():
                    watcher.screen.say("training")
        return views

    with cluster() as resources:
        watcher.screen.say("starting the workers")
        return run_on_cluster(incomplete, config.scaling, resources, config.evaluation.placement, watch, config.name)


def _replay_complete(watcher: Watcher, experiment: Experiment, complete: Collection[str]) -> list[SequencePlan]:
    """The sequences of which something is missing. Those whose states and scores are all there are noted without Ray."""
    incomplete = []
    for sequence, view in zip(experiment.sequences, watcher.look(), strict=True):
        if sequence.id not in complete and not is_complete(sequence, Store(folder_at(sequence.out))):
            incomplete.append(sequence)
        # other sequences may have made all of it, in a store that they share: then only the journal lacks it
        elif view.status != "finished" or not view.is_whole():
            run_sequence(sequence)
    return incomplete


def evaluate_experiment(experiment: Experiment, console: Console) -> tuple[dict[str, Any], list[str]]:
    """Score every state that is in the store, in this process. Returns (results, what went wrong).

    Raises UserError where the data, the model or a checkpoint is no longer what it was.
    """
    problems: list[str] = []
    with exclusive_run(experiment.config), Screen(experiment.sequences, console) as screen:
        sync = sync_of(experiment.config, warn_on(console))
        sync.follow(sequence.id for sequence in experiment.sequences)
        watcher = Watcher(experiment, screen)
        scorer = StateScorer()
        views = watcher.look()
        for number, sequence in enumerate(experiment.sequences):
            problems += _score_stored_states(scorer, sequence, views[number], screen)
            # at all of them for each would take longer the more there are, and longer than all else
            watcher.look_at(number)
        result = results(experiment)
        record_references(experiment.config.out, result["sequences"])
        result["mlflow_behind"] = close(sync, experiment.config, screen.say)
    problems += write_csv_or_say(experiment, result)
    return result, problems


def _score_stored_states(scorer: StateScorer, sequence: SequencePlan, view: View, screen: Screen) -> list[str]:
    """Compute and note the scores that a sequence lacks, of the states that are in the store. Returns what went wrong."""
    store = Store(folder_at(sequence.out))
    problems = []
    for tasks_seen, key in enumerate(sequence.keys):
        missing = missing_columns(sequence, tasks_seen, store)
        # of a state that was pruned the scores may be there all the same
        if tasks_seen > 0 and not store.has(key) and (missing or not store.is_pruned(key)):
            continue
        if missing:
            screen.say(f"scoring {sequence.id} after task {tasks_seen}")
            try:
                scorer.score(sequence, tasks_seen)
            # the other states can still be scored
            except Exception as error:
                problems.append(_scoring_problem(sequence, tasks_seen, error))
                continue
        # a sequence that never started has no data in its journal for scores to belong to
        if view.start and lacks_columns(sequence, view, tasks_seen):
            note_columns(sequence, tasks_seen, store)
    return problems


def _scoring_problem(sequence: SequencePlan, tasks_seen: int, error: Exception) -> str:
    """The line on a state that could not be scored; its traceback goes to the log that the line names."""
    log = logs.scoring_log(sequence.out, sequence.id, tasks_seen)
    logs.write_failure(log, f"scoring {sequence.id} after task {tasks_seen}", error)
    failure = events.ScoringFailed(
        tasks_seen=tasks_seen,
        reason=logs.reason(error),
        traceback=logs.traceback_of(error),
        method=sequence.method.label,
        log=str(log),
    )
    Journal(journal_folder(sequence.out, sequence.id), "evaluate").append(failure)
    line = f"scoring {sequence.id} after task {tasks_seen} failed: {logs.reason(error)}; log: {log}"
    # what ValueErrors say is that the input has changed, which other states would only say again
    if isinstance(error, ValueError):
        raise UserError(f"{error}; log: {log}") from error
    return line
