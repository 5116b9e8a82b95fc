"""Ray actors that score states beside training, and stay: each keeps the data, and the model of the sequence it scored last."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import logs
from orchestrator.cluster.ray_logs import introduce
from orchestrator.errors import WorkerFailed
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.storage.places import folder_at

logger = logging.getLogger(__name__)

# A machine may be taken away under an actor: so often is a state that it scored given to another one
MAX_RETRIES = 3
# An actor holds its CPU (and GPU) while it waits for the next state. After so many seconds a group of training workers, which
# may wait for it, is worth more than the seconds that a new actor takes to start.
IDLE_SECONDS = 30.0
# No cluster starts more for one experiment, however many states wait
MOST_ACTORS = 64


class ScoringActor:
    """What scores states, in a process of its own."""

    def __init__(self, gpu: bool) -> None:
        import torch

        from orchestrator.training.parallel import Parallel
        from orchestrator.training.scoring import StateScorer

        self.scorer = StateScorer(Parallel.current(torch.device("cuda" if gpu else "cpu")))

    def ready(self) -> None:
        """Return as soon as the process is there."""

    def score(self, values: dict[str, Any], tasks_seen: int, introduction: str) -> None:
        """Compute the scores that a sequence's state lacks; writes into `introduction` who does."""
        sequence = SequencePlan.model_validate(values)
        what = what_is_scored(sequence, tasks_seen)
        log = logs.scoring_log(sequence.out, sequence.id, tasks_seen)
        with logs.to_file(log):
            process = introduce(folder_at(introduction))
            logger.info("%s, by %s", what, process)
            try:
                self.scorer.score(sequence, tasks_seen)
            except Exception as error:
                logs.write_failure(log, what, error)
                # a user's own class of error need not exist in the process that receives it
                raise WorkerFailed(logs.reason(error)) from error


def what_is_scored(sequence: SequencePlan, tasks_seen: int) -> str:
    """The state that a scoring actor reads, in words."""
    if tasks_seen == 0:
        state = "the initial model"
    else:
        state = f"the state after task {sequence.tasks[tasks_seen - 1]!r}"
    return f"scoring {state} of {sequence.id}"


@dataclass
class Job:
    """A state that is to be scored, and how many actors died over it."""

    sequence: SequencePlan
    tasks_seen: int
    introduction: Path
    deaths: int = 0


@dataclass(frozen=True)
class Ended:
    """A job that is over; with the error where it failed."""

    job: Job
    error: Exception | None = None


@dataclass
class _Actor:
    """An actor, the answer that it owes, and the job that the answer is about: none while its process starts."""

    handle: Any
    answer: Any
    job: Job | None = None
    sequence_id: str = ""
    free_since: float = field(default_factory=time.monotonic)

    @property
    def is_free(self) -> bool:
        """Whether it waits for a job."""
        return self.answer is None

    def take(self, job: Job) -> None:
        """Begin with a job."""
        values = job.sequence.model_dump(mode="json")
        self.answer = self.handle.score.remote(values, job.tasks_seen, str(job.introduction))
        self.job = job
        self.sequence_id = job.sequence.id


class ScoringPool:
    """The actors of an experiment. As many are started as states wait; Ray lets those live that fit beside training."""

    def __init__(self, gpus: float) -> None:
        self.gpus = gpus
        self.waiting: list[Job] = []
        self.actors: list[_Actor] = []

    def submit(self, job: Job) -> None:
        """Have a state scored as soon as an actor is free."""
        self.waiting.append(job)

    @property
    def is_busy(self) -> bool:
        """Whether a state waits, or is being scored."""
        return bool(self.waiting) or any(actor.job for actor in self.actors)

    def poll(self) -> list[Ended]:
        """Collect what has ended since the last call, and hand out what waits. Returns at once."""
        ended: list[Ended] = []
        for actor in list(self.actors):
            if not actor.is_free and _is_there(actor.answer):
                ended += self._collect(actor)
        for actor in self.actors:
            if actor.is_free and self.waiting:
                actor.take(self._next_for(actor))
        self._start_actors()
        self._end_idle_actors()
        return ended

    def close(self) -> None:
        """End all actors."""
        while self.actors:
            self._end(self.actors[0])

    def _collect(self, actor: _Actor) -> list[Ended]:
        """Take an actor's answer. One that died is let go, and its job waits for another."""
        import ray

        job = actor.job
        error: Exception | None = None
        try:
            ray.get(actor.answer)
        except ray.exceptions.RayTaskError as own_error:
            error = own_error
        except ray.exceptions.RayError as death:
            self.actors.remove(actor)
            return self._after_death(job, death)
        actor.answer = None
        actor.job = None
        actor.free_since = time.monotonic()
        if job is None:
            return []
        return [Ended(job, error)]

    def _after_death(self, job: Job | None, death: Exception) -> list[Ended]:
        # that no actor can start is noted of a job too, or it would be tried for ever
        if job is None and self.waiting:
            job = self.waiting.pop(0)
        if job is None:
            return []
        job.deaths += 1
        logger.warning("an actor died while %s: %s", what_is_scored(job.sequence, job.tasks_seen), death)
        if job.deaths > MAX_RETRIES:
            return [Ended(job, death)]
        self.waiting.insert(0, job)
        return []

    def _next_for(self, actor: _Actor) -> Job:
        """The first job of the sequence whose model the actor holds; else the first one."""
        position = 0
        for index, job in enumerate(self.waiting):
            if job.sequence.id == actor.sequence_id:
                position = index
                break
        return self.waiting.pop(position)

    def _start_actors(self) -> None:
        """See to it that there is an actor on its way for each job that waits."""
        starting = 0
        for actor in self.actors:
            if not actor.is_free and actor.job is None:
                starting += 1
        for _ in range(min(len(self.waiting) - starting, MOST_ACTORS - len(self.actors))):
            self.start_actor()

    def start_actor(self) -> None:
        """Start an actor: before there is a job too, since its process takes as long to start as a worker's."""
        import ray

        kind: Any = ray.remote(ScoringActor).options(num_cpus=1, num_gpus=self.gpus)
        handle = kind.remote(self.gpus > 0)
        self.actors.append(_Actor(handle, handle.ready.remote()))

    def _end_idle_actors(self) -> None:
        """Give back what is free, or has not even started, after a while in which nothing waited."""
        now = time.monotonic()
        for actor in list(self.actors):
            # what waits will be handed to it
            if self.waiting or actor.job:
                actor.free_since = now
            elif now - actor.free_since > IDLE_SECONDS:
                self._end(actor)

    def _end(self, actor: _Actor) -> None:
        import ray

        ray.kill(actor.handle)
        self.actors.remove(actor)


def _is_there(answer: Any) -> bool:
    import ray

    there, _ = ray.wait([answer], timeout=0)
    return bool(there)
