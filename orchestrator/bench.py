"""Measurements behind the project's claims, each by one command."""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from methods import PRESETS, method_spec
from orchestrator.config.experiment import RunConfig
from orchestrator.errors import UserError
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.view import View
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import train_task

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
RATES = (5e-4, 1e-3)


def search_reuse(console: Console, max_train: int = 160) -> dict[str, Any]:
    """A search's sequences over one store, against each of them in a store of its own: tasks trained, seconds, results.

    Six ratios of MIGU, fine-tuning and the random mask, each at two learning rates, on the five embedded tasks.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        shared = _search(Path(folder) / "shared", max_train)
        rows = []
        for number, sequence in enumerate(track(shared, "search-reuse", console=console, transient=True)):
            alone = sequence.model_copy(update={"out": str(Path(folder) / f"alone-{number}")})
            pair = [sequence, alone] if number % 2 else [alone, sequence]  # neither always comes first
            views = {s.out: _timed(s) for s in pair}
            rows.append((sequence, views[sequence.out], views[alone.out]))
    result = {
        "sequences": len(rows),
        "tasks_naive": sum(len(s.tasks) for s, _, _ in rows),
        "tasks_trained": sum(_trained(view) for _, (view, _), _ in rows),
        "seconds_naive": round(sum(seconds for _, _, (_, seconds) in rows), 1),
        "seconds_shared": round(sum(seconds for _, (_, seconds), _ in rows), 1),
        "equal_results": all((a.matrix() == b.matrix()).all() for _, (a, _), (b, _) in rows),
    }
    result["tasks_saved"] = 1 - result["tasks_trained"] / result["tasks_naive"]
    result["time_ratio"] = round(result["seconds_shared"] / result["seconds_naive"], 3)
    return result


def _search(out: Path, max_train: int) -> list[SequencePlan]:
    def entries() -> Iterator[dict[str, Any]]:
        for rate in RATES:
            training = {"lr": rate}
            yield {"name": f"ft {rate:g}", "tuning": "full", "training": training}
            yield {"name": f"random {rate:g}", "tuning": "full", "plugins": ["random_mask"], "training": training}
            for ratio in RATIOS:
                plugins = [{"name": "migu", "ratio": ratio}]
                yield {"name": f"migu {ratio:g} {rate:g}", "tuning": "full", "plugins": plugins, "training": training}

    config = RunConfig.model_validate(
        {
            "name": "search-reuse",
            "model": {"name": "tiny-t5", "max_source": 64, "max_target": 8},
            "streams": [{"name": "embedded", "max_train": max_train, "max_test": 40}],
            "methods": list(entries()),
            "training": {"global_batch": 16},
            "out": str(out),
        }
    )
    return plan(config)


def _timed(sequence: SequencePlan) -> tuple[View, float]:
    started = time.monotonic()
    view = run_sequence(sequence)
    return view, time.monotonic() - started


def _trained(view: View) -> int:
    return sum(not task.checkpoint.reused for task in view.by_task.values() if task.checkpoint)


def print_search_reuse(result: dict[str, Any], console: Console) -> None:
    """What sharing saved."""
    table = Table(title=f"{result['sequences']} sequences of a search on five tasks", title_justify="left")
    for heading in ("store", "tasks trained", "seconds"):
        table.add_column(heading, justify="right" if heading != "store" else "left")
    table.add_row("one for each sequence", str(result["tasks_naive"]), str(result["seconds_naive"]))
    table.add_row("shared", str(result["tasks_trained"]), str(result["seconds_shared"]))
    console.print(table)
    same = "equal in every cell" if result["equal_results"] else "NOT EQUAL"
    saved = f"{100 * result['tasks_saved']:.0f} % of the tasks were not trained again"
    console.print(f"{saved}; time {result['time_ratio']:.2f} of the naive; accuracy matrices {same}", highlight=False)


def method_costs(
    console: Console, model: str = "tiny-t5", rounds: int = 3, max_train: int = 160
) -> list[dict[str, Any]]:
    """What each preset costs beside fine-tuning: time a step, time once a task, checkpoint and state, peak memory on a GPU.

    Each trains the second of two embedded tasks (in the first, many do nothing yet), all methods in turn, `rounds` times. A
    step's time is the median over the task's steps but the first; `step` the median of its ratio to fine-tuning in the same
    round. `once_s` is what the task took beside its steps: passes over its examples, decompositions, written samples.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        methods = [name for name in PRESETS if method_spec(name).trains_sequentially]
        sequences = [_method_sequence(name, model, max_train, folder) for name in methods]
        fitting = [s for s in sequences if s is not None]
        found: dict[str, list[dict[str, float]]] = {s.method.label: [] for s in fitting}
        turns = [s for _ in range(rounds) for s in fitting]
        for sequence in track(turns, "methods", console=console, transient=True):
            found[sequence.method.label].append(_second_task(sequence))
    plain = [run["step_s"] for run in found["ft"]]
    return [
        {
            "method": label,
            "step": round(median(run["step_s"] / base for run, base in zip(runs, plain, strict=True)), 3),
            "ms_a_step": round(1000 * median(run["step_s"] for run in runs), 2),
            "once_s": round(median(run["once_s"] for run in runs), 3),
            **{key: runs[0][key] for key in ("checkpoint_mb", "state_mb", "peak_mb")},
        }
        for label, runs in found.items()
    ]


def _method_sequence(name: str, model: str, max_train: int, out: str) -> SequencePlan | None:
    """None for a method that does not go with the model."""
    config = RunConfig.model_validate(
        {
            "name": "methods",
            "model": {"name": model, "max_source": 64, "max_target": 8},
            "streams": [{"name": "embedded", "first": 2, "max_train": max_train, "max_test": 10}],
            "methods": [name],
            "training": {"global_batch": 16},
            "out": out,
        }
    )
    try:
        (sequence,) = plan(config)
    except UserError:
        return None
    return sequence


def _second_task(sequence: SequencePlan) -> dict[str, float]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    learner = Learner(sequence, sequence.open_stream("nothing: a measurement"), Parallel.current(device))
    learner.load_initial()
    train_task(learner, 0, lambda event: None)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    optimizer_state: list[float] = []
    started = time.monotonic()
    state = train_task(learner, 1, lambda event: optimizer_state.append(time.monotonic()))
    seconds = time.monotonic() - started
    step = median([after - before for before, after in itertools.pairwise(optimizer_state)] or [seconds])
    return {
        "step_s": step,
        "once_s": max(0.0, seconds - (optimizer_state[-1] - optimizer_state[0]) - step),
        "checkpoint_mb": round(_megabytes(state.weights), 2),
        "state_mb": round(_megabytes(state.method), 2),
        "peak_mb": round(torch.cuda.max_memory_allocated() / 2**20, 1) if device.type == "cuda" else math.nan,
    }


def _megabytes(state: Any) -> float:
    """Of all tensors in a nested state."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size() / 2**20
    values = state.values() if isinstance(state, Mapping) else state if isinstance(state, list | tuple) else ()
    return sum(_megabytes(value) for value in values)


def print_method_costs(rows: list[dict[str, Any]], console: Console) -> None:
    """A line a method."""
    table = Table(title="cost beside fine-tuning", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for heading in ("step", "ms a step", "once a task", "weights MB", "state MB", "GPU MB"):
        table.add_column(heading, justify="right")
    for row in rows:
        peak = "–" if math.isnan(row["peak_mb"]) else f"{row['peak_mb']:.0f}"
        table.add_row(
            row["method"], f"{row['step']:.2f} x", f"{row['ms_a_step']:.1f}", f"{row['once_s']:.2f} s",
            f"{row['checkpoint_mb']:.2f}", f"{row['state_mb']:.2f}", peak,
        )  # fmt: skip
    console.print(table)
