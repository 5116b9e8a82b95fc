"""What trials of LoRA take that are trained in one pass, beside training each alone: `orchestrator bench fused-trials`."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from orchestrator.bench.steps import LLAMA, T5_SMALL
from orchestrator.config.experiment import RunConfig
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.training.fused.sequences import run_fused
from orchestrator.training.sequence import run_sequence

GLOBAL_BATCH = 8
TASKS = 2
# in float64, where a larger difference would be one of logic
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Case:
    """A model, by a built-in one with other sizes, and how many embedded examples each of two tasks has."""

    model: str
    builtin: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    examples: int = 320


CASES = (
    Case("tiny-t5", "tiny-t5"),
    Case("tiny-bert", "tiny-bert"),
    Case("tiny-llama", "tiny-llama"),
    Case("t5 (512 wide)", "tiny-t5", T5_SMALL, examples=32),
    Case("llama (512 wide)", "tiny-llama", LLAMA | {"max_position_embeddings": 512}, examples=32),
)


def fused_trials(console: Console, trials: int = 4, rounds: int = 3, cases: Sequence[Case] = CASES) -> dict[str, Any]:
    """Seconds of all trials both ways, in turns, and the largest difference that one pass makes to a trained weight.

    The seconds are of whole sequences, with loading the model, reading the texts and storing the states, without scoring. The
    difference is over all trials' last states, in float64.
    """
    measured = []
    for case in cases:
        measured.append(_measure(case, trials, rounds, console))
    largest = max(case["largest_difference"] for case in measured)
    return {"bench": "fused-trials", "trials": trials, "cases": measured, "equal_weights": largest <= TOLERANCE}


def _measure(case: Case, trials: int, rounds: int, console: Console) -> dict[str, Any]:
    separate = []
    fused = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        # not counted: what a process reads and compiles once would fall on whoever comes first
        difference = _difference(case, trials, Path(folder))
        for number in track(range(rounds), case.model, console=console, transient=True):
            # neither always comes first
            for is_fused in (number % 2 == 0, number % 2 == 1):
                sequences = _sequences(case, trials, Path(folder) / f"{number}-{is_fused}")
                if is_fused:
                    fused.append(_seconds(sequences, is_fused))
                else:
                    separate.append(_seconds(sequences, is_fused))
    ratios = []
    for together, one_by_one in zip(fused, separate, strict=True):
        ratios.append(together / one_by_one)
    return {
        "model": case.model,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "separate_s": round(median(separate), 2),
        "fused_s": round(median(fused), 2),
        "ratio": round(median(ratios), 3),
        "largest_difference": difference,
    }


def _sequences(case: Case, trials: int, out: Path, examples: int | None = None) -> list[SequencePlan]:
    """A trial for each of some learning rates, in a store of their own."""
    methods = []
    for number in range(trials):
        rate = 1e-3 * (number + 1) / trials
        methods.append({"name": f"trial-{number}", "tuning": "lora", "training": {"lr": rate}})
    config = RunConfig.model_validate(
        {
            "name": "fused-trials",
            "model": {"name": case.builtin, "overrides": dict(case.overrides), "max_source": 64, "max_target": 8},
            "streams": [{"name": "embedded", "first": TASKS, "max_train": examples or case.examples, "max_test": 2}],
            "methods": methods,
            "training": {"global_batch": GLOBAL_BATCH},
            "out": str(out),
        }
    )
    return plan(config)


def _seconds(sequences: Sequence[SequencePlan], is_fused: bool) -> float:
    """Train all tasks of all sequences; the seconds that it took."""
    started = time.monotonic()
    if is_fused:
        run_fused(sequences, evaluate=False)
    else:
        for sequence in sequences:
            run_sequence(sequence, evaluate=False)
    return time.monotonic() - started


def _difference(case: Case, trials: int, folder: Path) -> float:
    """The largest difference between weights of the same trial, after two steps of each task."""
    largest = 0.0
    with _in_float64():
        together = _sequences(case, trials, folder / "together", 2 * GLOBAL_BATCH)
        one_by_one = _sequences(case, trials, folder / "one-by-one", 2 * GLOBAL_BATCH)
        _seconds(together, is_fused=True)
        _seconds(one_by_one, is_fused=False)
        for fused, alone in zip(together, one_by_one, strict=True):
            weights = _last_weights(fused)
            for name, weight in _last_weights(alone).items():
                largest = max(largest, float((weights[name] - weight).abs().max()))
    return largest


def _last_weights(sequence: SequencePlan) -> Mapping[str, torch.Tensor]:
    return Store(Path(sequence.out)).load(sequence.keys[-1]).weights


@contextlib.contextmanager
def _in_float64() -> Iterator[None]:
    """Have models made in float64: the built-in ones take torch's default."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def print_fused_trials(result: Mapping[str, Any], console: Console) -> None:
    """Print a line for each model."""
    table = Table(
        title=f"{result['trials']} trials of LoRA in one pass",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("model", no_wrap=True)
    for heading in ("one by one", "in one pass", "ratio", "largest difference"):
        table.add_column(heading, justify="right", no_wrap=True)
    for case in result["cases"]:
        table.add_row(
            case["model"],
            f"{case['separate_s']:.1f} s",
            f"{case['fused_s']:.1f} s",
            f"{case['ratio']:.2f}",
            f"{case['largest_difference']:.0e}",
        )
    console.print(table)
