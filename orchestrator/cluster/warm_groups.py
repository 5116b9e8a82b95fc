"""Groups of workers that stay: one job after the other, in processes that have started and imported everything.

A search's trials, and the parts of a trial between two rungs, are jobs of seconds; a group takes longer than that to start.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator import interruption, logs
from orchestrator.cluster.groups import progress_of
from orchestrator.cluster.leaving import LEAVE_SECONDS, ask_to_leave, make_leave_file
from orchestrator.cluster.trainer import fit, gave_up, trainer
from orchestrator.cluster.worker import take_jobs
from orchestrator.config.running import ScalingConfig

# for processes to end after their last job; the cluster's end would end them too
END_SECONDS = 30.0


@dataclass(eq=False)
class Job:
    """Sequences that one group works through, and what went wrong with the machinery around it: known when it is over."""

    settings: dict[str, Any]
    problems: asyncio.Future[list[str]]
    # since it was last seen to go on
    takes: int = 0
    progress: int = 0

    @property
    def most_takes(self) -> int:
        """Each sequence may bring its group down once by a fault of its own, and so often by its workers' deaths."""
        return (self.settings["max_failures"] + 1) * len(self.settings["sequences"]) + 1

    def look(self) -> None:
        """Forget how often it was taken, if it has gone on since the last look."""
        progress = progress_of(self.settings)
        if progress > self.progress:
            self.progress = progress
            self.takes = 0


class JobQueue:
    """The actor between those who have jobs and the groups that do them. A job whose group died is that group's next one."""

    def __init__(self) -> None:
        self.waiting: list[Job] = []
        self.taken: dict[str, Job] = {}
        # since they were started last
        self.came_up: set[str] = set()
        self.is_closed = False
        self.changed = asyncio.Condition()

    async def run(self, settings: dict[str, Any]) -> list[str]:
        """Have a job done. Returns what went wrong around it, a line each, when it is over.

        Who asks may have died and have been started again: the job that it had asked for is then waited for, not done twice.
        """
        for job in [*self.waiting, *self.taken.values()]:
            if job.settings["sequences"] == settings["sequences"]:
                problems = await asyncio.shield(job.problems)
                if job.settings["until"] == settings["until"]:
                    return problems
        job = Job(settings, asyncio.get_running_loop().create_future())
        async with self.changed:
            self.waiting.append(job)
            self.changed.notify_all()
        return await asyncio.shield(job.problems)

    async def take(self, group: str, seconds: float) -> dict[str, Any] | None:
        """A group's next job; nothing (an empty one) where none came within so many seconds; None: there will be no more."""
        self.came_up.add(group)
        async with self.changed:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.changed.wait_for(lambda: self._has_news(group)), seconds)
            # a worker that died while it waited may have taken one for its group all the same
            if group not in self.taken:
                if not self.waiting:
                    return None if self.is_closed else {}
                self.taken[group] = self.waiting.pop(0)
                self.changed.notify_all()
        job = self.taken[group]
        job.takes += 1
        return job.settings

    async def end(self, group: str) -> None:
        """A group's job is over."""
        self._end(group, [])

    async def give_up(self, group: str, problem: str) -> bool:
        """What a group that could not be kept alive leaves undone; gives whether it is to be started again."""
        if group not in self.taken and self.waiting:
            self.taken[group] = self.waiting.pop(0)
        if group in self.taken:
            job = self.taken[group]
            job.look()
            # that it did not even come up counts as if it had taken the job
            if group not in self.came_up:
                job.takes += 1
            # with fewer it may have died of what other jobs did before
            if job.takes >= job.most_takes:
                self._end(group, [problem])
        self.came_up.discard(group)
        return not self.is_closed

    async def close(self) -> None:
        """There will be no more jobs."""
        async with self.changed:
            self.is_closed = True
            self.changed.notify_all()

    def _has_news(self, group: str) -> bool:
        return group in self.taken or bool(self.waiting) or self.is_closed

    def _end(self, group: str, problems: list[str]) -> None:
        self.taken.pop(group).problems.set_result(problems)


class JobAtWork:
    """A job that was given to warm groups, as seen by who gave it."""

    def __init__(self, queue: Any, settings: dict[str, Any]) -> None:
        self.answer = queue.run.remote(settings)

    @property
    def is_running(self) -> bool:
        """Whether it is not over."""
        import ray

        return not ray.wait([self.answer], timeout=0)[0]

    @property
    def problems(self) -> list[str]:
        """What went wrong with the machinery, a line each."""
        import ray

        problems: list[str] = ray.get(self.answer)
        return problems


@contextlib.contextmanager
def warm_groups(name: str, count: int, out: str, scaling: ScalingConfig, gpus: float) -> Iterator[Any]:
    """Start groups of workers side by side, and end them afterwards; gives the queue (an actor) that they take jobs from."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # beside this process: another machine may be taken away, and the queue with it
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(JobQueue)
    queue = actor.options(num_cpus=0, scheduling_strategy=here).remote()
    leave = make_leave_file(out, uuid.uuid4().hex)
    threads = []
    for index in range(count):
        # daemons: Ctrl-C ends the command, and not only when Ray Train has come back
        keep_alive = partial(_keep_alive, f"{name}-{index}", queue, leave, out, scaling, gpus)
        thread = threading.Thread(target=keep_alive, daemon=True)
        thread.start()
        threads.append(thread)
    try:
        yield queue
    finally:
        seconds = END_SECONDS
        if interruption.was_asked():
            ask_to_leave(leave)
            seconds = LEAVE_SECONDS
        queue.close.remote()
        ends = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, ends - time.monotonic()))
        leave.unlink(missing_ok=True)


def _keep_alive(name: str, queue: Any, leave: Path, out: str, scaling: ScalingConfig, gpus: float) -> None:
    """Run one group until there are no more jobs; it is started anew where Ray Train gives it up."""
    import ray

    run = uuid.uuid4().hex
    run_logs = logs.ray_logs(out, f"{name}-{run[:8]}")
    settings = {"queue": queue, "run": run, "run_logs": str(run_logs), "leave": str(leave), "sizes": []}
    goes_on = True
    while goes_on:
        try:
            fit(trainer(name, take_jobs, settings, out, scaling, gpus, scaling.max_failures + 1))
            return
        except Exception as error:  # Ray Train's errors have many types
            # the cluster ended, by Ctrl-C say: to ask anything of Ray now would start another one
            if interruption.was_asked() or not ray.is_initialized():
                return
            goes_on = ray.get(queue.give_up.remote(name, gave_up(name, error, out)))
