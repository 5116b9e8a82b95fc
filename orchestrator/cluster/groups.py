"""Sequences on a Ray cluster: groups of Ray Train workers side by side, and scores computed beside them."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from orchestrator import interruption, logs
from orchestrator.cluster.leaving import LEAVE_SECONDS, ask_to_leave, make_leave_file
from orchestrator.cluster.resources import Resources, gpus_per_worker, max_concurrent_groups, scores_asynchronously
from orchestrator.cluster.scoring import AsyncScoring
from orchestrator.cluster.trainer import fit, gave_up, trainer
from orchestrator.cluster.worker import work_through
from orchestrator.config.experiment import worker_counts
from orchestrator.config.running import ScalingConfig
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.storage.places import folder_at, seconds_between_looks
from orchestrator.store.view import View, read_view

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
    settings = _settings(sequences, scaling, name, until, evaluate=not asynchronously)
    run_logs = folder_at(settings["run_logs"])
    logger.info("%d groups of %s workers; scoring beside training: %s", groups, scaling.workers, asynchronously)
    leave = None
    if give is None:
        leave = make_leave_file(sequences[0].out, settings["run"])
        work: Work = _OwnGroups(groups, name, settings | {"leave": str(leave)}, sequences[0].out, scaling, gpus)
    else:
        work = give(settings)
    scoring = AsyncScoring(gpus, run_logs)
    # only where it takes nothing that a group waits for
    if asynchronously and scores_asynchronously("auto", scaling, resources, len(sequences)):
        scoring.pool.start_actor()
    try:
        # what is left in good order is not trained again
        with interruption.deferred() as was_asked:
            _follow(work, scoring if asynchronously else None, sequences, watch, was_asked)
            if was_asked() and leave:
                _have_left(work, leave, watch)
    finally:
        scoring.close()
        if leave:
            leave.unlink(missing_ok=True)
    return [*work.problems, *scoring.problems]


def _settings(
    sequences: Sequence[SequencePlan], scaling: ScalingConfig, name: str, until: int | None, evaluate: bool
) -> dict[str, Any]:
    """What the workers of one run are told."""
    # drawn at random, and the same for all workers: what happened in this run is known by it, whatever clocks say
    run = uuid.uuid4().hex
    return {
        "sequences": [sequence.model_dump(mode="json") for sequence in sequences],
        "evaluate": evaluate,
        "run": run,
        "max_failures": scaling.max_failures,
        "until": until,
        "run_logs": str(logs.ray_logs(sequences[0].out, f"{name}-{run[:8]}")),
        "sizes": worker_counts([sequence.training for sequence in sequences], scaling),
    }


def _follow(
    work: Work,
    scoring: AsyncScoring | None,
    sequences: Sequence[SequencePlan],
    watch: Callable[[], list[View]],
    was_asked: Callable[[], bool],
) -> None:
    """Watch until the groups have ended, or are to; score meanwhile what they store, where that is not their own affair."""
    while work.is_running or (scoring and scoring.is_busy):
        if was_asked():
            return
        views = watch()
        if scoring:
            scoring.tick(sequences, views)
        # often enough for a screen, and seldom enough for journals on shared storage
        time.sleep(seconds_between_looks(sequences[0].out, 0.3))
    if scoring is None:
        return
    # the last checkpoints may have come after the last look
    scoring.tick(sequences, watch())
    while scoring.is_busy and not was_asked():
        scoring.tick(sequences, watch())
        time.sleep(0.2)


def progress_of(settings: dict[str, Any]) -> int:
    """How much was done of the sequences of a run: a number that grows with each step forward that stays."""
    done = 0
    for values in settings["sequences"]:
        view = read_view(values["out"], values["id"])
        done += view.progress
        if view.has_ended and view.last_attempt.run == settings["run"]:
            done += 1
    return done


def _have_left(work: Work, leave: Path, watch: Callable[[], list[View]]) -> None:
    """Ask the workers to leave, and give them the time to write what they have."""
    ask_to_leave(leave)
    ends = time.monotonic() + LEAVE_SECONDS
    while work.is_running and time.monotonic() < ends:
        watch()
        time.sleep(0.2)


class _OwnGroups:
    """Groups of workers for some sequences alone: each takes those that no other one has taken."""

    def __init__(
        self, groups: int, name: str, settings: dict[str, Any], out: str, scaling: ScalingConfig, gpus: float
    ) -> None:
        self.settings = settings
        self.out = out
        self.scaling = scaling
        self.gpus = gpus
        self.problems: list[str] = []
        self.threads: list[threading.Thread] = []
        for index in range(groups):
            # Ray Train waits for a group until it has ended. Daemons: Ctrl-C ends the command, and not only when it comes back
            thread = threading.Thread(target=self._keep_alive, args=(f"{name}-{index}",), daemon=True)
            thread.start()
            self.threads.append(thread)

    @property
    def is_running(self) -> bool:
        return any(thread.is_alive() for thread in self.threads)

    def _keep_alive(self, group: str) -> None:
        """Run one group until its work is over. It is started again as long as it comes to something between two failures."""
        import ray

        failures = 0
        done = progress_of(self.settings)
        while True:
            try:
                self._fit(group)
                return
            except (
                Exception
            ) as error:  # a thread must hand over what it cannot raise; Ray Train's errors have many types
                # the cluster ended, by Ctrl-C say: to ask anything of Ray now would start another one
                if interruption.was_asked() or not ray.is_initialized():
                    return
                done_before = done
                done = progress_of(self.settings)
                failures = 0 if done > done_before else failures + 1
                # where workers died one after the other, Ray Train has tried often enough; its other errors it does not try again
                has_tried = isinstance(error, ray.train.WorkerGroupError) and failures > 0
                if has_tried or failures > self.scaling.max_failures:
                    self.problems.append(gave_up(group, error, self.out))
                    return
                logger.warning("%s is started again after %s", group, logs.reason(error))

    def _fit(self, group: str) -> None:
        # Each sequence may bring its group down once for a fault of its own and `max_failures` times by its workers' deaths;
        # the workers count that for each sequence, and Ray Train must not give up before they do.
        max_failures = (self.scaling.max_failures + 1) * len(self.settings["sequences"])
        fit(trainer(group, work_through, self.settings, self.out, self.scaling, self.gpus, max_failures))
