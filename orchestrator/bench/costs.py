"""What each method costs beside fine-tuning: `orchestrator bench methods`."""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from methods import PRESETS, method_spec
from orchestrator.bench.learners import measured_learner
from orchestrator.config.experiment import RunConfig
from orchestrator.errors import UserError
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.training.task import train_task


def method_costs(
    console: Console, model: str = "tiny-t5", rounds: int = 3, max_train: int = 160
) -> list[dict[str, Any]]:
    """What each preset costs beside fine-tuning: time a step, time once a task, checkpoint and state, peak memory on a GPU.

    Each trains the second of two embedded tasks (in the first, many do nothing yet), all methods in turn, `rounds` times. A
    step's time is the median over the task's steps but the first; `step` the median of its ratio to fine-tuning in the same
    round. `once_s` is what the task took beside its steps: passes over its examples, decompositions, written samples.
    """
    runs_by_method: dict[str, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        # what does not even take fine-tuning is no model, which is said once and not left out for each method
        plan(_method_config("ft", model, max_train, folder))
        sequences = []
        for name in PRESETS:
            # reference runs train no second task
            if method_spec(name).trains_sequentially:
                sequences += _method_sequence(name, model, max_train, folder)
        # round after round, so that a change of the machine's load falls on all methods
        for sequence in track(sequences * rounds, "methods", console=console, transient=True):
            runs_by_method[sequence.method.label].append(_second_task(sequence))
    rows = []
    for label, runs in runs_by_method.items():
        rows.append({"method": label, **_cost(runs, runs_by_method["ft"])})
    return rows


def _cost(runs: Sequence[dict[str, float]], plain_runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Medians over the rounds of one method, beside those of fine-tuning. Sizes are the same in every round."""
    ratios = []
    for run, plain in zip(runs, plain_runs, strict=True):
        ratios.append(run["step_s"] / plain["step_s"])
    return {
        "step": round(median(ratios), 3),
        "ms_a_step": round(1000 * median(run["step_s"] for run in runs), 2),
        "once_s": round(median(run["once_s"] for run in runs), 3),
        "checkpoint_mb": runs[0]["checkpoint_mb"],
        "state_mb": runs[0]["state_mb"],
        "peak_mb": runs[0]["peak_mb"],
    }


def _method_sequence(name: str, model: str, max_train: int, out: str) -> list[SequencePlan]:
    """The one sequence of a method; none for a method that does not go with the model."""
    try:
        return plan(_method_config(name, model, max_train, out))
    except UserError:
        return []


def _method_config(name: str, model: str, max_train: int, out: str) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "methods",
            "model": {"name": model, "max_source": 64, "max_target": 8},
            "streams": [{"name": "embedded", "first": 2, "max_train": max_train, "max_test": 10}],
            "methods": [name],
            "training": {"global_batch": 16},
            "out": out,
        }
    )


def _second_task(sequence: SequencePlan) -> dict[str, float]:
    """Train two tasks and measure the second: seconds, MiB of weights and of the method's state, MiB at most on the GPU."""
    # not through `run_sequence`: the disk would be measured too, and a second round would find the first one's states
    learner = measured_learner(sequence)
    has_gpu = torch.cuda.is_available()
    # not measured: many methods do nothing before the second task
    train_task(learner, 0, lambda event: None)
    if has_gpu:
        torch.cuda.reset_peak_memory_stats()
    step_ends: list[float] = []
    started = time.monotonic()
    state = train_task(learner, 1, lambda event: step_ends.append(time.monotonic()))
    seconds = time.monotonic() - started
    step_seconds = []
    for before, after in itertools.pairwise(step_ends):
        step_seconds.append(after - before)
    # a task of one step has no two ends to measure between
    step = median(step_seconds or [seconds])
    # the first step's beginning is not reported, so one typical step is added to what lies between first and last end
    seconds_in_steps = step_ends[-1] - step_ends[0] + step
    peak_mb = math.nan
    if has_gpu:
        peak_mb = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return {
        "step_s": step,
        "once_s": max(0.0, seconds - seconds_in_steps),
        "checkpoint_mb": round(_megabytes(state.weights), 2),
        "state_mb": round(_megabytes(state.method), 2),
        "peak_mb": peak_mb,
    }


def _megabytes(state: Any) -> float:
    """The size in MiB of all tensors in a nested state."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size() / 2**20
    if isinstance(state, Mapping):
        return sum(map(_megabytes, state.values()))
    if isinstance(state, list | tuple):
        return sum(map(_megabytes, state))
    return 0.0


def print_method_costs(rows: list[dict[str, Any]], console: Console) -> None:
    """Print a line for each method."""
    table = Table(title="cost beside fine-tuning", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for heading in ("step", "ms a step", "once a task", "weights MB", "state MB", "GPU MB"):
        table.add_column(heading, justify="right")
    for row in rows:
        peak = f"{row['peak_mb']:.0f}"
        if math.isnan(row["peak_mb"]):
            peak = "–"
        table.add_row(
            row["method"],
            f"{row['step']:.2f} x",
            f"{row['ms_a_step']:.1f}",
            f"{row['once_s']:.2f} s",
            f"{row['checkpoint_mb']:.2f}",
            f"{row['state_mb']:.2f}",
            peak,
        )
    console.print(table)
