"""Sequences on a Ray cluster: groups of Ray Train workers side by side, and scores computed beside them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestrator import logs
from orchestrator.cluster.resources import Resources, gpus_per_worker, max_concurrent_groups, scores_asynchronously
from orchestrator.cluster.scoring import AsyncScoring
from orchestrator.config.running import ScalingConfig
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.view import View

logger = logging.getLogger(__name__)


def run_on_cluster(
    sequences: Sequence[SequencePlan],
    scaling: ScalingConfig,
    resources: Resources,
    placement: str,
    watch: Callable[[], list[View]],
    name: str,
    until: int | None = None,
) -> list[str]:
    """Train and score the sequences; `watch` is called all the while, and gives what the journals say by now.

    `until` ends each after that many tasks.

    Returns what went wrong with the machinery, a line each. A sequence that failed says so in its own journal.
    """
    groups = min(len(sequences), max_concurrent_groups(scaling, resources))
    asynchronously = scores_asynchronously(placement, scaling, resources, len(sequences))
    gpus = gpus_per_worker(scaling, resources)
    started = int(time.time() * 1000)
    run_logs = logs.ray_logs(sequences[0].out, f"{name}-{started}")
    settings: dict[str, Any] = {
        "sequences": [sequence.model_dump(mode="json") for sequence in sequences],
        "evaluate": not asynchronously,
        "started": started,
        "max_failures": scaling.max_failures,
        "until": until,
        "run_logs": str(run_logs),
    }
    logger.info("%d groups of %d workers; scoring beside training: %s", groups, scaling.workers, asynchronously)
    problems: list[str] = []
    threads = _start_groups(groups, name, settings, scaling, gpus, problems)
    scoring = AsyncScoring(gpus, run_logs)
    try:
        _follow(threads, scoring if asynchronously else None, sequences, watch)
    finally:
        scoring.close()
    return problems + scoring.problems


def _follow(
    threads: Sequence[threading.Thread],
    scoring: AsyncScoring | None,
    sequences: Sequence[SequencePlan],
    watch: Callable[[], list[View]],
) -> None:
    """Watch until the groups have ended; score meanwhile what they store, where that is not their own affair."""
    while any(thread.is_alive() for thread in threads) or (scoring and scoring.is_busy):
        views = watch()
        if scoring:
            scoring.tick(sequences, views)
        # often enough for a screen, and seldom enough for journals on shared storage
        time.sleep(0.3)
    if scoring is None:
        return
    # the last checkpoints may have come after the last look
    scoring.tick(sequences, watch())
    while scoring.is_busy:
        scoring.tick(sequences, watch())
        time.sleep(0.2)


def _start_groups(
    groups: int, name: str, settings: dict[str, Any], scaling: ScalingConfig, gpus: float, problems: list[str]
) -> list[threading.Thread]:
    """A thread for each group, since Ray Train waits for a group until it has ended."""
    threads = []
    for index in range(groups):
        arguments = (f"{name}-{index}", settings, scaling, gpus, problems)
        # daemons: Ctrl-C ends the command, and not only when Ray Train has come back
        thread = threading.Thread(target=_fit_group, args=arguments, daemon=True)
        thread.start()
        threads.append(thread)
    return threads


def _fit_group(name: str, settings: dict[str, Any], scaling: ScalingConfig, gpus: float, problems: list[str]) -> None:
    """Run one TorchTrainer: a group of workers that works through the sequences."""
    out = settings["sequences"][0]["out"]
    try:
        _trainer(name, settings, scaling, gpus).fit()
    except Exception as error:  # a thread must hand over what it cannot raise; Ray Train's errors have many types
        log = logs.driver_log(out)
        logs.write_failure(log, f"the workers of {name}", error)
        problems.append(f"the workers of {name} gave up: {_last_line(error)}; log: {log}")


def _trainer(name: str, settings: dict[str, Any], scaling: ScalingConfig, gpus: float) -> Any:
    """The TorchTrainer of one group."""
    import ray.train
    from ray.train.torch import TorchTrainer

    from orchestrator.cluster.deaths import NoteDeaths
    from orchestrator.cluster.worker import work_through

    storage = Path(settings["sequences"][0]["out"]) / "ray"
    run_name = f"{name}-{settings['started']}"
    introductions = storage / run_name / "workers"
    resources_per_worker = {"CPU": scaling.cpus_per_worker}
    if gpus:
        resources_per_worker["GPU"] = gpus
    # Each sequence may bring its group down once for a fault of its own and `max_failures` times by its workers' deaths; the
    # workers count that for each sequence, and Ray Train must not give up before they do.
    max_failures = (scaling.max_failures + 1) * len(settings["sequences"])
    return TorchTrainer(
        work_through,
        train_loop_config=settings | {"group": name, "strategy": scaling.strategy, "introductions": str(introductions)},
        scaling_config=ray.train.ScalingConfig(
            num_workers=scaling.workers,
            use_gpu=gpus > 0,
            resources_per_worker=resources_per_worker,
        ),
        run_config=ray.train.RunConfig(
            name=run_name,
            storage_path=str(storage),
            # typed for the older version of Ray Train, which calls other methods of it
            callbacks=[NoteDeaths(name, introductions, Path(settings["run_logs"]))],  # type: ignore[list-item]
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),  # type: ignore[call-arg]  # Train V2 has it
        ),
    )


def _last_line(error: BaseException) -> str:
    """The last line of an error's message: where Ray puts the cause, below its own stack."""
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    return lines[-1].strip()
