"""Groups of workers that stay: who gets which job, and on a real Ray cluster, that they stay, and come back from a death."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator import logs
from orchestrator.cluster.groups import run_on_cluster
from orchestrator.cluster.resources import Resources
from orchestrator.cluster.warm_groups import JobAtWork, JobQueue, warm_groups
from orchestrator.config.running import ScalingConfig
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.store.view import View, read_view
from orchestrator.training.sequence import run_sequence
from tests.orchestrator.failing import write_plugin
from tests.orchestrator.store.examples import checkpoint

ROOT = Path(__file__).parents[3]
SCALING = ScalingConfig(max_failures=1, max_concurrent=1)


def job(name: str, max_failures: int = 1, until: int | None = None) -> dict[str, Any]:
    sequence = {"id": name, "out": "no such folder"}
    return {"sequences": [sequence], "run": "r", "max_failures": max_failures, "until": until}


def test_each_job_is_given_once_in_order_and_ends_with_its_group() -> None:
    async def check() -> None:
        queue = JobQueue()
        first, second = asyncio.create_task(queue.run(job("a"))), asyncio.create_task(queue.run(job("b")))
        await asyncio.sleep(0)
        assert await queue.take("one", 1) == job("a")
        assert await queue.take("two", 1) == job("b")
        await queue.end("two")
        assert await second == []
        assert not first.done()
        await queue.end("one")
        assert await first == []

    asyncio.run(check())


def test_a_group_waits_for_a_job_and_for_the_end() -> None:
    async def check() -> None:
        queue = JobQueue()
        assert await queue.take("one", 0.01) == {}
        taking = asyncio.create_task(queue.take("one", 60))
        await asyncio.sleep(0.01)
        done = asyncio.create_task(queue.run(job("a")))
        assert await asyncio.wait_for(taking, 1) == job("a")
        await queue.end("one")
        await done
        taking = asyncio.create_task(queue.take("one", 60))
        await asyncio.sleep(0.01)
        await queue.close()
        assert await asyncio.wait_for(taking, 1) is None

    asyncio.run(check())


def test_a_group_that_died_goes_on_with_its_job() -> None:
    async def check() -> None:
        queue = JobQueue()
        waiting = [asyncio.create_task(queue.run(job(name))) for name in "ab"]
        await asyncio.sleep(0)
        assert [await queue.take("one", 1) for _ in range(2)] == [job("a")] * 2
        # Ray Train gave up a group that died over other jobs before
        assert await queue.give_up("one", "it died") is True
        assert not waiting[0].done()
        # the workers themselves say after its second death that this is enough; this is for those that never get so far
        assert await queue.take("one", 1) == job("a")
        assert await queue.give_up("one", "it died") is True
        assert await waiting[0] == ["it died"]
        # no worker came up at all, as often as a sequence may be taken up
        assert await queue.give_up("one", "no such module") is True
        assert await queue.give_up("one", "no such module") is True
        assert not waiting[1].done()
        assert await queue.give_up("one", "no such module") is True
        assert await waiting[1] == ["no such module"]
        assert await queue.give_up("one", "no such module") is True, "there may be another job"
        await queue.close()
        assert await queue.give_up("one", "no such module") is False

    asyncio.run(check())


def test_a_job_that_goes_on_between_its_deaths_is_never_given_up(tmp_path: Path) -> None:
    async def check() -> None:
        queue = JobQueue()
        settings = job("a")
        settings["sequences"][0]["out"] = str(tmp_path)
        waiting = asyncio.create_task(queue.run(settings))
        await asyncio.sleep(0)
        for task_id in range(10):
            assert await queue.take("one", 1) == settings
            Journal(journal_folder(tmp_path, "a")).append(checkpoint(task_id))
            assert await queue.give_up("one", "it died") is True
        assert not waiting.done()
        for _ in range(3):
            assert await queue.take("one", 1) == settings
            assert await queue.give_up("one", "it died") is True
        assert await waiting == ["it died"]

    asyncio.run(check())


def test_what_a_worker_takes_that_died_while_it_waited_is_not_lost() -> None:
    async def check() -> None:
        queue = JobQueue()
        takes = []
        for _ in range(2):
            takes.append(asyncio.create_task(queue.take("one", 60)))
            await asyncio.sleep(0)
        jobs = [asyncio.create_task(queue.run(job(name))) for name in "ab"]
        assert await asyncio.wait_for(asyncio.gather(*takes), 1) == [job("a")] * 2
        await queue.end("one")
        assert await queue.take("one", 1) == job("b")
        await queue.end("one")
        assert await asyncio.gather(*jobs) == [[], []]

    asyncio.run(check())


def test_who_asks_again_waits_for_what_is_being_done() -> None:
    async def check() -> None:
        queue = JobQueue()
        first = asyncio.create_task(queue.run(job("a", until=2)))
        await asyncio.sleep(0)
        # the process that asked is gone
        first.cancel()
        again, later = asyncio.create_task(queue.run(job("a", until=2))), asyncio.create_task(queue.run(job("a")))
        await asyncio.sleep(0)
        assert await queue.take("one", 1) == job("a", until=2)
        assert await queue.take("two", 0.01) == {}, "two groups would wait for each other"
        await queue.end("one")
        assert await again == []
        assert await queue.take("two", 1) == job("a")
        await queue.end("two")
        assert await later == []

    asyncio.run(check())


@pytest.fixture(scope="module")
def plugin() -> Iterator[Path]:
    """A cluster of one CPU whose processes import a user's plug-in; gives the plug-in."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    written = write_plugin(folder / "users", "killing_plugin")
    with pytest.MonkeyPatch.context() as patched:
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            patched.delenv(name)
        patched.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        patched.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{written.parent}")
        patched.syspath_prepend(str(written.parent))
        ray.init(
            address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, _temp_dir=str(folder / "ray")
        )
        yield written
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_process_does_one_job_after_the_other(
    plugin: Path, sequence_of: Callable[..., SequencePlan], tmp_path: Path
) -> None:
    """Up to a task and on from there; a job over which it dies fails, and the next one is done by a process that came for it."""
    first, second = sequence_of(methods=["ft"]), sequence_of(methods=["lora"])
    killing = {
        "name": "mine",
        "tuning": "full",
        "plugins": [{"name": "killing_plugin.Broken", "hook": "before_task", "how": "kill"}],
    }
    fatal = sequence_of(methods=[killing])
    with warm_groups("warm", 1, str(tmp_path / "out"), SCALING, 0.0) as queue:

        def do(sequence: SequencePlan, until: int | None = None) -> View:
            problems = run_on_cluster(
                [sequence],
                SCALING,
                Resources(1, 0),
                "inline",
                lambda: [read_view(sequence.out, sequence.id)],
                "trial",
                until,
                give=lambda settings: JobAtWork(queue, settings),
            )
            assert problems == []
            return read_view(sequence.out, sequence.id)

        assert do(first, until=1).status == "running"
        assert do(first).status == "finished"
        failed = do(fatal)
        assert failed.status == "failed"
        assert "its workers died 2 times (scaling.max_failures is 1)" in failed.failure
        assert do(second).status == "finished"
    pids = [pids_of(sequence) for sequence in (first, fatal, second)]
    assert len(pids[0]) == 2 and len(set(pids[0])) == 1, "the same process before and after the rung"
    assert len(set(pids[1])) == 2 and pids[1][0] == pids[0][0], "it dies with the process, and with the next one"
    assert pids[2][0] not in pids[1]
    for sequence in (first, second):
        alone = run_sequence(sequence.model_copy(update={"out": str(tmp_path / "alone")}))
        assert (read_view(sequence.out, sequence.id).matrix() == alone.matrix()).all()


def pids_of(sequence: SequencePlan) -> list[int]:
    """The processes that took a sequence up, in order."""
    log = logs.worker_log(sequence.out, sequence.id, 0).read_text()
    return [int(pid) for pid in re.findall(r"worker 0 of 1 \(pid (\d+) .* takes", log)]
