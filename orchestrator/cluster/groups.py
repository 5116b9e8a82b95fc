"""Sequences on a Ray cluster: groups of Ray Train workers side by side, and scores computed beside them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from orchestrator import logs
from orchestrator.cluster.resources import (
    Resources,
    gpus_per_worker,
    max_concurrent_groups,
    ray_storage,
    scores_asynchronously,
)
from orchestrator.cluster.scoring import AsyncScoring
from orchestrator.cluster.worker import work_through
from orchestrator.config.running import ScalingConfig
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.storage.places import folder_at, seconds_between_looks
from orchestrator.store.view import View

logger = logging.getLogger(__name__)


class Work(Protocol):
    """Sequences that workers work through."""

    @property
    def is_running(self) -> bool:
        """Whether it is not over."""
        ...

    @property
    def problems(self) -> list[str]:
        """What went wrong with the machinery, a line each; complete when it is over."""
        ...


def run_on_cluster(
    sequences: Sequence[SequencePlan],
    scaling: ScalingConfig,
    resources: Resources,
    placement: str,
    watch: Callable[[], list[View]],
    name: str,
    until: int | None = None,
    give: Callable[[dict[str, Any]], Work] | None = None,
) -> list[str]:
    """Train and score the sequences; `watch` is called all the while, and gives what the journals say by now.

    `until` ends each after that many tasks. `give` gives the work to groups that are there; without it they are started.

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
    if give is None:
        work: Work = _OwnGroups(groups, name, settings, sequences[0].out, scaling, gpus)
    else:
        work = give(settings)
    scoring = AsyncScoring(gpus, run_logs)
    # only where it takes nothing that a group waits for
    if asynchronously and scores_asynchronously("auto", scaling, resources, len(sequences)):
        scoring.pool.start_actor()
    try:
        _follow(work, scoring if asynchronously else None, sequences, watch)
    finally:
        scoring.close()
    return [*work.problems, *scoring.problems]


def _follow(
    work: Work, scoring: AsyncScoring | None, sequences: Sequence[SequencePlan], watch: Callable[[], list[View]]
) -> None:
    """Watch until the groups have ended; score meanwhile what they store, where that is not their own affair."""
    while work.is_running or (scoring and scoring.is_busy):
        views = watch()
        if scoring:
            scoring.tick(sequences, views)
        # often enough for a screen, and seldom enough for journals on shared storage
        time.sleep(seconds_between_looks(sequences[0].out, 0.3))
    if scoring is None:
        return
    # the last checkpoints may have come after the last look
    scoring.tick(sequences, watch())
    while scoring.is_busy:
        scoring.tick(sequences, watch())
        time.sleep(0.2)


class _OwnGroups:
    """Groups of workers for some sequences alone: each takes those that no other one has taken."""

    def __init__(
        self, groups: int, name: str, settings: dict[str, Any], out: str, scaling: ScalingConfig, gpus: float
    ) -> None:
        self.problems: list[str] = []
        self.threads: list[threading.Thread] = []
        # Each sequence may bring its group down once for a fault of its own and `max_failures` times by its workers' deaths;
        # the workers count that for each sequence, and Ray Train must not give up before they do.
        max_failures = (scaling.max_failures + 1) * len(settings["sequences"])
        for index in range(groups):
            group = f"{name}-{index}"
            fit = partial(
                self._fit, group, trainer(group, work_through, settings, out, scaling, gpus, max_failures), out
            )
            # Ray Train waits for a group until it has ended. Daemons: Ctrl-C ends the command, and not only when it comes back
            thread = threading.Thread(target=fit, daemon=True)
            thread.start()
            self.threads.append(thread)

    @property
    def is_running(self) -> bool:
        return any(thread.is_alive() for thread in self.threads)

    def _fit(self, group: str, of_group: Any, out: str) -> None:
        try:
            of_group.fit()
        except Exception as error:  # a thread must hand over what it cannot raise; Ray Train's errors have many types
            self.problems.append(gave_up(group, error, out))


def gave_up(group: str, error: Exception, out: str) -> str:
    """The line on a group that Ray Train gave up; its traceback goes to the log that the line names."""
    log = logs.driver_log(out)
    logs.write_failure(log, f"the workers of {group}", error)
    return f"the workers of {group} gave up: {_last_line(error)}; log: {log}"


def trainer(
    group: str,
    work: Callable[[dict[str, Any]], None],
    settings: dict[str, Any],
    out: str,
    scaling: ScalingConfig,
    gpus: float,
    max_failures: int,
) -> Any:
    """The TorchTrainer of one group, whose workers call `work` with the settings."""
    import ray.train
    from ray.train.torch import TorchTrainer

    from orchestrator.cluster.deaths import NoteDeaths

    run_name = f"{group}-{settings['started']}"
    introductions = folder_at(out) / "ray" / run_name / "workers"
    resources_per_worker = {"CPU": scaling.cpus_per_worker}
    if gpus:
        resources_per_worker["GPU"] = gpus
    return TorchTrainer(
        work,
        train_loop_config=settings
        | {"group": group, "strategy": scaling.strategy, "introductions": str(introductions)},
        scaling_config=ray.train.ScalingConfig(
            num_workers=scaling.workers,
            use_gpu=gpus > 0,
            resources_per_worker=resources_per_worker,
        ),
        run_config=ray.train.RunConfig(
            name=run_name,
            **ray_storage(out),
            # typed for the older version of Ray Train, which calls other methods of it
            callbacks=[NoteDeaths(group, introductions, folder_at(settings["run_logs"]))],  # type: ignore[list-item]
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
