"""What trials save that share a store and are stopped at rungs: `orchestrator bench search-reuse`."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table

from orchestrator.config.experiment import RunConfig
from orchestrator.config.loading import load_config
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.search.decisions.halving import rungs
from orchestrator.search.definition import prepare
from orchestrator.search.trial_store import TrialStore
from orchestrator.search.trials import Trial, score_after
from orchestrator.store.view import View
from orchestrator.training.sequence import run_sequence

RATIOS = (0.1, 0.3, 0.5)
RATES = (5e-4, 1e-3)
# The recipe `embedded-quick`, with more trials and stopped at rungs
SEARCH = ("search.trials=12", "search.scheduler=asha", "search.grace=2", "search.at_once=1")


@dataclass(frozen=True)
class TimedRun:
    """What a sequence gave and the seconds that it took."""

    view: View
    seconds: float


def search_reuse(console: Console, max_train: int = 160, settings: Sequence[str] = ()) -> dict[str, Any]:
    """What sharing saves of some sequences, with equal results; and what a search trains that also stops trials."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        result = _shared_store(console, max_train, Path(folder) / "sequences")
        config = load_config("embedded-quick", [*SEARCH, *settings], str(Path(folder) / "search"))
        return {"bench": "search-reuse"} | result | {"search": _stopped_search(console, config)}


def _shared_store(console: Console, max_train: int, folder: Path) -> dict[str, Any]:
    """A search's sequences over one store, against each of them in a store of its own: tasks trained, seconds, results.

    Ratios of MIGU, fine-tuning and the random mask, each at two learning rates, on the five embedded tasks.
    """
    shared: list[TimedRun] = []
    alone: list[TimedRun] = []
    sequences = _sequences(folder / "shared", max_train)
    for number, sequence in enumerate(track(sequences, "one store", console=console, transient=True)):
        # another folder changes no key, so the work is the same and only what is found differs
        own_store = sequence.model_copy(update={"out": str(folder / f"alone-{number}")})
        # neither always comes first: what a machine is busy with meanwhile must not favour one of them
        if number % 2:
            shared.append(_timed(sequence))
            alone.append(_timed(own_store))
        else:
            alone.append(_timed(own_store))
            shared.append(_timed(sequence))
    return _reuse(shared, alone)


def _stopped_search(console: Console, config: RunConfig) -> dict[str, Any]:
    """Tasks that a search trains with ASHA, against all tasks of all its trials, and what both would choose."""
    search = prepare(config, gpu=False)
    trial_store = TrialStore(search.folder, search.settings, search.planner, search.method_searches)
    trained = 0
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("a search", total=2 * trial_store.num_planned())
        while trial := trial_store.start_next():
            _run_trial(trial_store, trial)
            trial_store.record_result(trial)
            trained += trial_store.results[trial.key].cost.trained
            progress.advance(bar)
        # what was stopped goes on, for what a search without rungs would have seen
        finals: dict[str, dict[str, float]] = defaultdict(dict)
        for trial in trial_store.all_trials():
            views = [run_sequence(sequence) for sequence in trial.sequences]
            finals[trial.method][trial.key] = score_after(search.settings, views, trial.num_tasks)
            progress.advance(bar)
    naive = sum(trial.num_tasks * len(trial.sequences) for trial in trial_store.all_trials())
    choices = _choices(trial_store, finals)
    return {
        "trials": len(trial_store.all_trials()),
        "stopped": sum(result.status == "stopped" for result in trial_store.results.values()),
        "tasks_naive": naive,
        "tasks_trained": trained,
        "ratio": round(trained / naive, 3),
        "same_choice": all(choice["chosen"] == choice["whole"] for choice in choices.values()),
        "choices": choices,
    }


def _choices(trial_store: TrialStore, finals: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """By method: what the search chose, what it would have chosen of whole trials, and how many points that scores more."""
    choices = {}
    for method, scores in finals.items():
        best = trial_store.best(method)
        # the first round is never stopped, so there is a choice
        assert best
        # of equal scores the first counts, as for the search
        whole = max(scores, key=lambda key: scores[key])
        choices[method] = {"chosen": best.key, "whole": whole, "regret": round(scores[whole] - scores[best.key], 2)}
    return choices


def _run_trial(trial_store: TrialStore, trial: Trial) -> None:
    """Train and score a trial until it is through, or told to stop at a rung."""
    for tasks in [*rungs(trial_store.search, trial.num_tasks), trial.num_tasks]:
        views = [run_sequence(sequence, until=tasks) for sequence in trial.sequences]
        score = score_after(trial_store.search, views, tasks)
        if tasks < trial.num_tasks and not trial_store.passes_rung(trial, tasks, score):
            return


def _reuse(shared: Sequence[TimedRun], alone: Sequence[TimedRun]) -> dict[str, Any]:
    """Counts and seconds over all sequences, and whether every pair has the same accuracy matrix."""
    tasks_naive = 0
    tasks_trained = 0
    equal_results = True
    for run, run_alone in zip(shared, alone, strict=True):
        tasks_naive += len(run.view.tasks)
        tasks_trained += _num_trained(run.view)
        # a score that is missing is NaN, which equals nothing, and so counts as a difference
        equal_results &= bool((run.view.matrix() == run_alone.view.matrix()).all())
    seconds_naive = round(sum(map(attrgetter("seconds"), alone)), 1)
    seconds_shared = round(sum(map(attrgetter("seconds"), shared)), 1)
    return {
        "sequences": len(shared),
        "tasks_naive": tasks_naive,
        "tasks_trained": tasks_trained,
        "seconds_naive": seconds_naive,
        "seconds_shared": seconds_shared,
        "equal_results": equal_results,
        "tasks_saved": 1 - tasks_trained / tasks_naive,
        "time_ratio": round(seconds_shared / seconds_naive, 3),
    }


def _sequences(out: Path, max_train: int) -> list[SequencePlan]:
    methods: list[dict[str, Any]] = []
    for rate in RATES:
        shared = {"tuning": "full", "training": {"lr": rate}}
        methods.append({"name": f"ft {rate:g}", **shared})
        methods.append({"name": f"random {rate:g}", "plugins": ["random_mask"], **shared})
        for ratio in RATIOS:
            plugins = [{"name": "migu", "ratio": ratio}]
            methods.append({"name": f"migu {ratio:g} {rate:g}", "plugins": plugins, **shared})
    config = RunConfig.model_validate(
        {
            "name": "search-reuse",
            "model": {"name": "tiny-t5", "max_source": 64, "max_target": 8},
            "streams": [{"name": "embedded", "max_train": max_train, "max_test": 40}],
            "methods": methods,
            "training": {"global_batch": 16},
            "out": str(out),
        }
    )
    return plan(config)


def _timed(sequence: SequencePlan) -> TimedRun:
    started = time.monotonic()
    view = run_sequence(sequence)
    return TimedRun(view, time.monotonic() - started)


def _num_trained(view: View) -> int:
    """The tasks that this sequence trained itself."""
    count = 0
    for task in view.by_task.values():
        if task.checkpoint and not task.checkpoint.reused:
            count += 1
    return count


def print_search_reuse(result: dict[str, Any], console: Console) -> None:
    """Print what sharing a store saved."""
    table = Table(title=f"{result['sequences']} sequences of a search on five tasks", title_justify="left")
    table.add_column("store")
    table.add_column("tasks trained", justify="right")
    table.add_column("seconds", justify="right")
    table.add_row("one for each sequence", str(result["tasks_naive"]), str(result["seconds_naive"]))
    table.add_row("shared", str(result["tasks_trained"]), str(result["seconds_shared"]))
    console.print(table)
    same = "equal in every score" if result["equal_results"] else "NOT EQUAL"
    saved = f"{100 * result['tasks_saved']:.0f} % of the tasks were not trained again"
    console.print(f"{saved}; time {result['time_ratio']:.2f} of the naive; accuracy matrices {same}", highlight=False)
    search = result["search"]
    choice = "with the same choice"
    if not search["same_choice"]:
        points = max(choice["regret"] for choice in search["choices"].values())
        choice = f"with ANOTHER CHOICE, up to {points:g} points worse"
    console.print(
        f"A search of {search['trials']} trials, of which ASHA stopped {search['stopped']}, trained {search['tasks_trained']} of "
        f"{search['tasks_naive']} tasks ({search['ratio']:.2f}), {choice}",
        highlight=False,
    )
