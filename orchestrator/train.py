"""Sequences on a Ray cluster: groups of Ray Train workers side by side, and scores computed beside them."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Read by ray.train when it is imported and handed on to its controller and workers.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # no GPU asked for: none seen

from orchestrator.checkpoint import Store
from orchestrator.config import ScalingConfig
from orchestrator.errors import SequenceFailed, UserError
from orchestrator.journal import Journal, View, journal_folder, read_view
from orchestrator.plan import Sequence


@dataclass(frozen=True)
class Resources:
    """What a cluster has."""

    cpus: float
    gpus: float


def local_resources() -> Resources:
    """What this machine would bring into a local cluster; starts nothing."""
    import torch

    return Resources(float(os.cpu_count() or 1), float(torch.cuda.device_count()))


def cluster_is_running() -> bool:
    """Whether the environment names a cluster to connect to (as in a submitted job)."""
    return bool(os.environ.get("RAY_ADDRESS"))


@contextlib.contextmanager
def cluster() -> Iterator[Resources]:
    """Connect to the cluster of RAY_ADDRESS, or start one on this machine and end it afterwards."""
    import logging

    import ray

    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if not cluster_is_running():
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        options |= {
            "address": "local",
            "num_cpus": os.cpu_count(),
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
        }
    mine = not ray.is_initialized()  # else a search holds one cluster over both of its phases
    if mine:
        ray.init(**options)
    try:
        total = ray.cluster_resources()
        yield Resources(total.get("CPU", 0.0), total.get("GPU", 0.0))
    finally:
        if mine:
            ray.shutdown()


def gpus_per_worker(scaling: ScalingConfig, resources: Resources) -> float:
    """As asked for; by default 1 where there are GPUs."""
    if scaling.gpus_per_worker is not None:
        return scaling.gpus_per_worker
    return 1.0 if resources.gpus >= 1 else 0.0


def groups_at_once(scaling: ScalingConfig, resources: Resources) -> int:
    """How many groups of workers fit at a time. Raises UserError where not even one does."""
    if scaling.at_once is not None:
        return scaling.at_once
    gpus = gpus_per_worker(scaling, resources)
    fits = [_fits(resources.cpus, scaling.workers * scaling.cpus_per_worker)]
    if gpus:
        fits.append(_fits(resources.gpus, scaling.workers * gpus))
    if min(fits) < 1:
        asked = f"{scaling.workers} x ({scaling.cpus_per_worker:g} CPU, {gpus:g} GPU)"
        raise UserError(
            f"scaling.workers: asks for {asked}, but the cluster has {resources.cpus:g} CPUs and {resources.gpus:g} GPUs"
        )
    return int(min(fits))


def _fits(has: float, each: float) -> int:
    """How often `each` goes into what there is; 1 / 0.2 is 5."""
    return int(has / each + 1e-9)


def evaluates_aside(where: str, scaling: ScalingConfig, resources: Resources, sequences: int) -> bool:
    """Whether scores are computed by tasks of their own: where asked, or where training leaves a CPU (and GPU) free."""
    if where != "auto":
        return where == "async"
    groups = min(sequences, groups_at_once(scaling, resources))
    gpus = gpus_per_worker(scaling, resources)
    free_cpus = resources.cpus - groups * scaling.workers * scaling.cpus_per_worker
    free_gpus = resources.gpus - groups * scaling.workers * gpus
    return free_cpus >= 1 and (gpus == 0 or free_gpus >= gpus)


def work_through(settings: dict[str, Any]) -> None:
    """What every worker of a group runs: take sequences that nobody else has taken, until none is left.

    A claim is a lock in the storage, which ends with its holder. So a group that died is followed by itself or by another,
    and both go on from the last checkpoint.
    """
    import ray.train.torch
    import torch

    from orchestrator.loop import run_sequence
    from orchestrator.workers import Workers

    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    workers = Workers.here(device)
    for values in settings["sequences"]:
        sequence = Sequence.model_validate(values)
        with _claim(sequence, settings["started"]) if workers.is_first else contextlib.nullcontext(True) as mine:
            if not workers.agree(mine and _is_due(sequence, settings)):
                continue
            try:
                run_sequence(sequence, evaluate=settings["evaluate"], workers=workers, until=settings["until"])
            except SequenceFailed:
                continue  # it is in the journal; the other sequences go on


@contextlib.contextmanager
def _claim(sequence: Sequence, started: int) -> Iterator[bool]:
    """Try to be the only one that trains a sequence; False if another group of this run does.

    A process that still holds it from an earlier run, one that was killed, is waited for.
    """
    store = Store(Path(sequence.out))
    while True:
        with store.claim(f"sequence-{sequence.id}", timeout=1) as mine:
            if mine:
                yield True
                return
        if any(start >= started for start in read_view(sequence.out, sequence.id).starts):
            yield False
            return


def _is_due(sequence: Sequence, settings: dict[str, Any]) -> bool:
    """Whether a sequence has not ended in this run. One whose workers died again and again is noted as failed."""
    view = read_view(sequence.out, sequence.id)
    ended = view.finished_at if view.status == "finished" else view.failed_at if view.status == "failed" else 0
    attempts = sum(start >= settings["started"] for start in view.starts)
    if settings["until"] and _has_reached(view, settings["until"], settings["evaluate"]):
        return False
    if ended < settings["started"] and attempts > settings["max_failures"]:
        reason = f"its workers died {attempts} times (scaling.max_failures is {settings['max_failures']})"
        Journal(journal_folder(sequence.out, sequence.id)).append({"event": "sequence_failed", "reason": reason})
        return False
    return ended < settings["started"]


def _has_reached(view: View, until: int, scored: bool) -> bool:
    """Whether a sequence has trained so many tasks, and scored them where the workers do that."""
    tasks = [view.by_task.get(task_id) for task_id in range(until)]
    trained = all(task and task.checkpoint for task in tasks)
    return trained and (not scored or all(view.row_is_full(row) for row in range(until + 1)))


def _score_row(values: dict[str, Any], row: int, gpu: bool) -> None:
    """A Ray task: fill the missing cells of one row."""
    import torch

    from orchestrator.loop import score_row
    from orchestrator.workers import Workers

    score_row(Sequence.model_validate(values), row, Workers.here(torch.device("cuda" if gpu else "cpu")))


@dataclass
class _Scoring:
    """The rows that are being scored aside, and those that are done."""

    gpus: float
    running: dict[Any, tuple[Sequence, int]] = field(default_factory=dict)
    taken: set[tuple[str, int]] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def tick(self, sequences: Many[Sequence], views: Many[View]) -> None:
        """Start what can be scored, and note what has been."""
        import ray

        for sequence, view in zip(sequences, views, strict=True):
            ready = [0] if view.start else []
            ready += [task_id + 1 for task_id, task in view.by_task.items() if task.checkpoint]
            for row in ready:
                if (sequence.id, row) not in self.taken and not view.row_is_full(row):
                    self.taken.add((sequence.id, row))
                    task = ray.remote(_score_row).options(num_cpus=1, num_gpus=self.gpus, max_retries=3)
                    values = sequence.model_dump(mode="json")
                    self.running[task.remote(values, row, self.gpus > 0)] = (sequence, row)
        done, _ = ray.wait(list(self.running), num_returns=len(self.running), timeout=0) if self.running else ([], [])
        for reference in done:
            self._note(reference, *self.running.pop(reference))

    def _note(self, reference: Any, sequence: Sequence, row: int) -> None:
        import ray

        from orchestrator.evaluate import row_events

        try:
            ray.get(reference)
        except ray.exceptions.RayError as error:
            self.problems.append(f"{sequence.id}, after task {row}: {str(error).strip().splitlines()[-1]}")
            return
        journal = Journal(journal_folder(sequence.out, sequence.id), "evaluate")
        for event in row_events(sequence, row, Store(Path(sequence.out))):
            journal.append(event)


def run_on_cluster(
    sequences: Many[Sequence],
    scaling: ScalingConfig,
    resources: Resources,
    where: str,
    watch: Callable[[], list[View]],
    name: str,
    until: int | None = None,
) -> list[str]:
    """Train and score the sequences; `watch` is called all the while, and gives what the journals say by now.

    `until` ends each after that many tasks.

    Returns what went wrong with the machinery, a line each. A sequence that failed says so in its own journal.
    """
    groups = min(len(sequences), groups_at_once(scaling, resources))
    aside = evaluates_aside(where, scaling, resources, len(sequences))
    gpus = gpus_per_worker(scaling, resources)
    problems: list[str] = []
    settings = {
        "sequences": [s.model_dump(mode="json") for s in sequences],
        "evaluate": not aside,
        "started": int(time.time() * 1000),
        "max_failures": scaling.max_failures,
        "until": until,
    }
    threads = [
        threading.Thread(target=_fit_group, args=(f"{name}-{i}", settings, scaling, gpus, problems), daemon=True)
        for i in range(groups)
    ]
    for thread in threads:
        thread.start()
    scoring = _Scoring(gpus)
    while any(thread.is_alive() for thread in threads) or scoring.running:
        views = watch()
        if aside:
            scoring.tick(sequences, views)
        time.sleep(0.3)
    if aside:  # the last checkpoints may have come after the last look
        scoring.tick(sequences, watch())
        while scoring.running:
            scoring.tick(sequences, watch())
            time.sleep(0.2)
    return problems + scoring.problems


def _fit_group(name: str, settings: dict[str, Any], scaling: ScalingConfig, gpus: float, problems: list[str]) -> None:
    """One TorchTrainer: a group of workers that works through the sequences."""
    import ray.train
    from ray.train.torch import TorchTrainer

    storage = Path(settings["sequences"][0]["out"]) / "ray"
    trainer = TorchTrainer(
        work_through,
        train_loop_config=settings,
        scaling_config=ray.train.ScalingConfig(
            num_workers=scaling.workers,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": scaling.cpus_per_worker, **({"GPU": gpus} if gpus else {})},
        ),
        run_config=ray.train.RunConfig(
            name=f"{name}-{settings['started']}",
            storage_path=str(storage),
            failure_config=ray.train.FailureConfig(max_failures=scaling.max_failures * len(settings["sequences"])),
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),  # type: ignore[call-arg]  # Train V2 has it
        ),
    )
    try:
        trainer.fit()
    except Exception as error:  # a thread must hand over what it cannot raise; Ray Train's errors have many types
        problems.append(f"workers of {name} gave up: {_last_line(error)}")


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
