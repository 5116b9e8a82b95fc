"""What checkpoints cost: `orchestrator bench checkpoints`.

The same tasks are trained in turns with their states written in three ways: written and then read again to be hashed while
training waits, hashed while written, and written beside the next task's training as a run does it. Then what a state inside a
task costs, what each setting of `checkpoints` leaves on the disk, and the same on paper for the published experiments.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import save_file

from orchestrator.bench.learners import measured_learner
from orchestrator.config.experiment import RunConfig
from orchestrator.config.running import CheckpointsConfig
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.report.pruning import shown_bytes
from orchestrator.store.checkpoints import MANIFEST, MOST_LINKS, State, Store
from orchestrator.store.events import ProgressSaved
from orchestrator.store.integrity import file_sha256
from orchestrator.store.records.event import Event
from orchestrator.store.states.state_files import (
    HISTORY_FILE,
    METHOD_TENSORS_FILE,
    METHOD_VALUES_FILE,
    WEIGHTS_FILE,
    pack_state,
)
from orchestrator.store.states.writer import StateWriter
from orchestrator.training.in_task.checkpoints import TaskCheckpoints
from orchestrator.training.in_task.running_task import RunningTask
from orchestrator.training.task import train_task

# Its weights are random and its vocabulary is the embedded stream's; all other sizes are the published model's
T5_SMALL = {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_decoder_layers": 6, "num_heads": 8}
WAYS = ("written, then hashed", "hashed while written", "beside training")

# The published experiments: T5-large has 737,668,096 weights of four bytes
PAPER = {"bytes": 4 * 737_668_096, "methods": 11, "seeds": 3, "tasks": 15}


class _Pass:
    """A sequence that is trained once, with its states written in one of the ways."""

    def __init__(self, sequence: SequencePlan, way: str, store: Store) -> None:
        self.sequence = sequence
        self.way = way
        self.store = store
        self.writer = StateWriter()

    def run(self) -> dict[str, float]:
        """Seconds of a task, by the mean over those after the first: trained, and waited for its state; and once at the end."""
        learner = measured_learner(self.sequence)
        trained = []
        waited = []
        for task_id in range(len(self.sequence.tasks)):
            started = time.perf_counter()
            state = train_task(learner, task_id, lambda event: None)
            between = time.perf_counter()
            self._write(task_id, state)
            trained.append(between - started)
            waited.append(time.perf_counter() - between)
        started = time.perf_counter()
        self.writer.wait()
        ended = time.perf_counter() - started
        self.writer.close()
        # what is allocated once is no task's
        return {"train_s": mean(trained[1:]), "wait_s": mean(waited[1:]), "end_s": ended}

    def _write(self, task_id: int, state: State) -> None:
        key = self.sequence.keys[task_id + 1]
        if self.way == WAYS[0]:
            _write_then_hash(self.store.path(key), state)
        elif self.way == WAYS[1]:
            self.store.write(key, pack_state(state), {})
        else:
            self.writer.wait()
            packed = pack_state(state)
            self.writer.start(lambda: self.store.write(key, packed, {}), contextlib.ExitStack())


def _write_then_hash(folder: Path, state: State) -> None:
    """What was done before states were hashed while they are written. Without a copy: training waits."""
    folder.mkdir(parents=True)
    weights = {}
    for name, weight in state.weights.items():
        weights[name] = weight.detach().cpu().contiguous()
    save_file(weights, folder / WEIGHTS_FILE)
    # fine-tuning's method has no state of its own
    save_file({}, folder / METHOD_TENSORS_FILE)
    (folder / METHOD_VALUES_FILE).write_text("{}")
    (folder / HISTORY_FILE).write_text(json.dumps(state.history))
    files = {}
    for file in sorted(folder.iterdir()):
        files[file.name] = {"sha256": file_sha256(file), "bytes": file.stat().st_size}
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1))
    for file in folder.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())


def checkpoint_costs(console: Console, model: str = "t5-small", rounds: int = 1, max_train: int = 96) -> dict[str, Any]:
    """Seconds on the critical path by the way of writing, bytes left by setting, and both on paper for T5-large."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        sequence = _sequence(model, max_train, folder)
        passes: dict[str, list[dict[str, float]]] = defaultdict(list)
        for number in track(range(rounds * len(WAYS)), "states", console=console, transient=True):
            way = WAYS[number % len(WAYS)]
            store = Store(Path(folder) / str(number))
            passes[way].append(_Pass(sequence, way, store).run())
        # the last pass has written beside training: its store is a run's
        inside = _inside(sequence, Store(Path(folder) / "inside"))
        settings = _settings(sequence, store, Store(Path(folder) / "delta"))
    ways = []
    for way, runs in passes.items():
        row: dict[str, Any] = {"way": way}
        for name in ("train_s", "wait_s", "end_s"):
            # a tiny model's wait is a fraction of a millisecond
            row[name] = round(median(run[name] for run in runs), 6)
        row["share"] = round(row["wait_s"] / (row["train_s"] + row["wait_s"]), 4)
        ways.append(row)
    return {
        "bench": "checkpoints",
        "model": model,
        "tasks": len(sequence.tasks),
        "ways": ways,
        "inside": inside,
        "settings": settings,
        "paper": on_paper(settings["delta"]["ratio"], **PAPER),
    }


def _inside(sequence: SequencePlan, store: Store) -> dict[str, float]:
    """What training waits for a state inside a task, how long that is written beside it, and both at the default setting."""
    every_step = sequence.checkpoints.model_copy(update={"every_steps": 1})
    planned = sequence.model_copy(update={"checkpoints": every_step})
    learner = measured_learner(planned)
    written: list[ProgressSaved] = []

    def report(event: Event) -> None:
        if isinstance(event, ProgressSaved):
            written.append(event)

    states = _TimedCheckpoints(planned, 0, learner.parallel, store, report, lambda: False, [])
    train_task(learner, 0, lambda event: None, inside=states)
    states.close()
    wait = median(states.waits[1:])
    every = CheckpointsConfig().every_seconds
    assert every is not None
    return {
        "bytes": written[-1].bytes,
        "wait_s": round(wait, 6),
        "write_s": round(median(event.seconds for event in written), 6),
        "share": round(wait / every, 8),
        # as if training stood still while it is written, as it does at most
        "share_at_most": round((wait + median(event.seconds for event in written)) / every, 8),
    }


class _TimedCheckpoints(TaskCheckpoints):
    """States inside a task, with the seconds that a step waited for each."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.waits: list[float] = []

    def after_step(self, running: RunningTask, wishes: Sequence[float]) -> None:
        # the one before has been written by then, as it has after ten minutes
        self._wait()
        started = time.perf_counter()
        super().after_step(running, wishes)
        self.waits.append(time.perf_counter() - started)


def _sequence(model: str, max_train: int, out: str) -> SequencePlan:
    name: dict[str, Any] = {"name": model}
    if model == "t5-small":
        name = {"name": "tiny-t5", "overrides": T5_SMALL}
    config = RunConfig.model_validate(
        {
            "name": "checkpoints",
            "model": {**name, "max_source": 64, "max_target": 8},
            "streams": [{"name": "embedded", "first": 3, "max_train": max_train, "max_test": 10}],
            "methods": ["ft"],
            "training": {"global_batch": 16, "lr": 1e-4},
            "out": out,
        }
    )
    (sequence,) = plan(config)
    return sequence


def _settings(sequence: SequencePlan, whole: Store, differing: Store) -> dict[str, dict[str, float]]:
    """What each setting leaves of a sequence's states, in bytes; of differences also the seconds and the ratio."""
    keys = sequence.keys[1:]
    base = None
    writing = 0.0
    reading = 0.0
    for key in keys:
        packed = pack_state(whole.load(key))
        started = time.perf_counter()
        differing.write(key, packed, {}, base)
        writing += time.perf_counter() - started
        base = key
        started = time.perf_counter()
        differing.load(key)
        reading += time.perf_counter() - started
    settings: dict[str, dict[str, float]] = {"all": {"bytes": _bytes(whole)}}
    # of a difference from the state before, its bytes as a share of the whole
    ratio = differing.size(keys[-1]) / whole.size(keys[-1])
    settings["delta"] = {
        "bytes": _bytes(differing),
        "ratio": round(ratio, 3),
        "write_s": round(writing, 3),
        "read_s": round(reading, 3),
    }
    for key in keys[:-1]:
        whole.prune(key)
    settings["last"] = {"bytes": _bytes(whole)}
    whole.prune(keys[-1])
    settings["none"] = {"bytes": _bytes(whole)}
    return settings


def _bytes(store: Store) -> int:
    total = 0
    for file in (store.root / "checkpoints").rglob("*"):
        if file.is_file():
            total += file.stat().st_size
    return total


def on_paper(ratio: float, bytes: int, methods: int, seeds: int, tasks: int) -> dict[str, Any]:
    """The bytes that each setting leaves of an experiment in which every method trains all weights and none shares a task."""
    sequences = methods * seeds
    whole = math.ceil(tasks / (MOST_LINKS + 1))
    return {
        "all": sequences * tasks * bytes,
        "delta": round(sequences * bytes * (whole + (tasks - whole) * ratio)),
        "last": sequences * bytes,
        "none": 0,
        # the last state and the one that is written, for each sequence that is running
        "while_running": 2 * bytes,
    }


def print_checkpoint_costs(result: Mapping[str, Any], console: Console) -> None:
    """Print both tables."""
    title = f"{result['model']}: a task, and what it waits for its state"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("state", no_wrap=True)
    for heading in ("training", "waiting", "share", "once, at the end"):
        table.add_column(heading, justify="right", no_wrap=True)
    for way in result["ways"]:
        share = f"{100 * way['share']:.1f} %"
        table.add_row(way["way"], f"{way['train_s']:.2f} s", f"{way['wait_s']:.3f} s", share, f"{way['end_s']:.2f} s")
    console.print(table)
    title = f"left of {result['tasks']} states, and of {PAPER['methods']} methods x {PAPER['seeds']} seeds on T5-large"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("checkpoints", no_wrap=True)
    for heading in ("bytes", "on paper"):
        table.add_column(heading, justify="right", no_wrap=True)
    for setting, left in result["settings"].items():
        name = "delta: true" if setting == "delta" else f"keep: {setting}"
        table.add_row(name, shown_bytes(int(left["bytes"])), shown_bytes(result["paper"][setting]))
    console.print(table)
    inside = result["inside"]
    console.print(
        f"a state inside a task, {shown_bytes(int(inside['bytes']))}: training waits {inside['wait_s']:.3f} s, and it is "
        f"written in {inside['write_s']:.2f} s beside; every 10 minutes, {100 * inside['share']:.3f} % of the time, at most "
        f"{100 * inside['share_at_most']:.2f} %",
        highlight=False,
    )
    delta = result["settings"]["delta"]
    console.print(
        f"a difference takes {delta['ratio']:.2f} of a state; all of them: written in {delta['write_s']:.2f} s, read in "
        f"{delta['read_s']:.2f} s",
        highlight=False,
    )
