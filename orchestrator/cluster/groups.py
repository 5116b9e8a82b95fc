"""Sequences on a Ray cluster: groups of Ray Train workers side by side, and scores computed beside them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.cluster.resources import Resources, gpus_per_worker, max_concurrent_groups, scores_asynchronously
from orchestrator.cluster.scoring import AsyncScoring
from orchestrator.cluster.worker import work_through
from orchestrator.config.running import ScalingConfig
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.view import View


def run_on_cluster(
    sequences: Sequence[SequencePlan],
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
    groups = min(len(sequences), max_concurrent_groups(scaling, resources))
    aside = scores_asynchronously(where, scaling, resources, len(sequences))
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
    scoring = AsyncScoring(gpus)
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
