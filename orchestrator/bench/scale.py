"""What keeping and reading records takes where there are many: `orchestrator bench scale`."""

from __future__ import annotations

import sqlite3
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.bench.made_records import Size, long_sequence, make_experiment
from orchestrator.config.search import Dimension, SearchConfig
from orchestrator.planning.experiment import Experiment, open_experiment, tracking_uri
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.report.csv_files import write_csv
from orchestrator.report.results import results
from orchestrator.report.tables import print_report
from orchestrator.run import evaluate_experiment
from orchestrator.search.decisions.suggestions import Sampler, TrialRecord
from orchestrator.store.view import read_view
from orchestrator.tracking import MlflowSync
from orchestrator.tracking.connection import Connection

# A copy that takes longer than a day is none
MOST_SECONDS = 86400.0
# Views of so many sequences are held at once to see what memory they take
HELD = 100
PROPOSALS = 300
MB = 2**20


def scale(console: Console, size: Size, long_steps: int = 200_000, proposals: int = PROPOSALS) -> dict[str, Any]:
    """Seconds, rows and bytes of the records of an experiment of that size, and of one long sequence.

    The records are made, not trained, and lie in a temporary folder. Where something is measured at half the size too, what
    grows in step with the size takes twice as long at all of it.
    """
    result: dict[str, Any] = {"bench": "scale", **asdict(size), "long_steps": long_steps}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, console.status("making records") as status:
        out = Path(folder)
        result["write_s"] = _seconds(lambda: make_experiment(out, size))
        experiment = open_experiment("scale", str(out))
        half = Experiment(experiment.config, experiment.sequences[: max(1, size.sequences // 2)])
        status.update("copying to MLflow")
        result |= _copying(experiment, half)
        status.update("reading records")
        result |= _reading(experiment, half)
        status.update("one long sequence")
        result |= _long(out, experiment, long_steps)
        status.update("proposing trials")
        result |= _proposing(proposals)
    return result


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return round(time.monotonic() - started, 3)


def _copy(experiment: Experiment, sequences: Sequence[SequencePlan]) -> None:
    sync = MlflowSync(tracking_uri(experiment.config), "scale", experiment.config.out)
    sync.follow(sequence.id for sequence in sequences)
    if not sync.close(MOST_SECONDS):
        raise RuntimeError(f"the copy in MLflow failed: {sync.trouble}")


def _copying(experiment: Experiment, half: Experiment) -> dict[str, Any]:
    """The first copy, of one half and then of the other, and a second start that has nothing new."""
    database = Path(experiment.config.out) / "mlflow.db"
    # the tables are made once for all sequences
    Connection(tracking_uri(experiment.config), "scale", experiment.config.out).connect()
    half_s = _seconds(lambda: _copy(experiment, half.sequences))
    rest_s = _seconds(lambda: _copy(experiment, experiment.sequences))
    rows = _metric_rows(database)
    before = database.read_bytes()
    again_s = _seconds(lambda: _copy(experiment, experiment.sequences))
    return {
        "copy_half_s": half_s,
        "copy_s": round(half_s + rest_s, 3),
        "metric_rows": rows,
        "points_per_s": round(rows / (half_s + rest_s)),
        "database_mb": round(len(before) / MB, 1),
        "copy_again_s": again_s,
        "copy_again_writes": database.read_bytes() != before,
    }


def _metric_rows(database: Path) -> int:
    with sqlite3.connect(database) as connection:
        (count,) = connection.execute("SELECT count(*) FROM metrics").fetchone()
    return int(count)


def _reading(experiment: Experiment, half: Experiment) -> dict[str, Any]:
    """The report, an evaluation that finds nothing missing, and the memory of what the journals say."""
    console = Console(quiet=True)

    def report() -> None:
        opened = open_experiment("scale", experiment.config.out)
        result = results(opened)
        print_report(result, console)
        write_csv(opened, result)

    held = experiment.sequences[:HELD]
    return {
        "report_s": _seconds(report),
        "evaluate_half_s": _seconds(lambda: evaluate_experiment(half, console)),
        "evaluate_s": _seconds(lambda: evaluate_experiment(experiment, console)),
        "views": len(held),
        "views_mb": _memory(lambda: [read_view(sequence.out, sequence.id) for sequence in held]),
    }


def _memory(make: Callable[[], object]) -> float:
    """The memory in MB of what is made, while it is held."""
    tracemalloc.start()
    made = make()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del made
    return round(size / MB, 2)


def _long(out: Path, experiment: Experiment, steps: int) -> dict[str, Any]:
    """One sequence of very many steps: its copy, a start with nothing new, reading it and holding it."""
    if not steps:
        return {}
    sequence = long_sequence(out, experiment, steps)
    return {
        "long_copy_s": _seconds(lambda: _copy(experiment, [sequence])),
        "long_copy_again_s": _seconds(lambda: _copy(experiment, [sequence])),
        "long_read_s": _seconds(lambda: read_view(sequence.out, sequence.id)),
        "long_view_mb": _memory(lambda: read_view(sequence.out, sequence.id)),
    }


def _proposing(count: int) -> dict[str, Any]:
    """The milliseconds of a proposal, of the first tenth of them and of the last."""
    space = {"training.lr": Dimension(low=1e-5, high=1e-2, log=True), "migu.ratio": Dimension(low=0.0, high=1.0)}
    times: dict[str, Any] = {}
    tenth = max(1, count // 10)
    for searcher in ("random", "tpe"):
        search = SearchConfig.model_validate({"streams": ["embedded"], "searcher": searcher, "trials": count})
        sampler = Sampler(search, space)
        records: list[TrialRecord] = []
        seconds: list[float] = []
        for number in range(count):
            started = time.monotonic()
            suggestion = sampler.suggest(number, records)
            seconds.append(time.monotonic() - started)
            assert suggestion is not None
            score = -abs(suggestion.values["migu.ratio"] - 0.3)
            records.append(TrialRecord(suggestion.values, score, notes=suggestion.notes))
        for name, part in (("first", seconds[:tenth]), ("last", seconds[-tenth:])):
            times[f"proposal_{searcher}_{name}_ms"] = round(1000 * sum(part) / tenth, 3)
    return times | {"proposals": count}


def print_scale(result: dict[str, Any], console: Console) -> None:
    """Print what records take."""
    title = f"{result['sequences']:,} sequences of {result['tasks']} tasks of {result['steps']} steps"
    console.print(title, highlight=False)
    table = Table()
    table.add_column("what")
    table.add_column("value", justify="right")
    for name, value in result.items():
        # what was asked for is in the title
        if name not in ("bench", "sequences", "tasks", "steps"):
            table.add_row(name, str(value))
    console.print(table)
