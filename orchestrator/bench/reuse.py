"""What trials save that share a store: `orchestrator bench search-reuse`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from orchestrator.config.experiment import RunConfig
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.view import View
from orchestrator.training.sequence import run_sequence

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
RATES = (5e-4, 1e-3)


@dataclass(frozen=True)
class TimedRun:
    """What a sequence gave and the seconds that it took."""

    view: View
    seconds: float


def search_reuse(console: Console, max_train: int = 160) -> dict[str, Any]:
    """A search's sequences over one store, against each of them in a store of its own: tasks trained, seconds, results.

    Six ratios of MIGU, fine-tuning and the random mask, each at two learning rates, on the five embedded tasks.
    """
    shared: list[TimedRun] = []
    alone: list[TimedRun] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        sequences = _search(Path(folder) / "shared", max_train)
        for number, sequence in enumerate(track(sequences, "search-reuse", console=console, transient=True)):
            # another folder changes no key, so the work is the same and only what is found differs
            own_store = sequence.model_copy(update={"out": str(Path(folder) / f"alone-{number}")})
            # neither always comes first: what a machine is busy with meanwhile must not favour one of them
            if number % 2:
                shared.append(_timed(sequence))
                alone.append(_timed(own_store))
            else:
                alone.append(_timed(own_store))
                shared.append(_timed(sequence))
    return _reuse(shared, alone)


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


def _search(out: Path, max_train: int) -> list[SequencePlan]:
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
