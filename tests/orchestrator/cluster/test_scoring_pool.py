"""Actors that score states on a real Ray cluster: what they keep, and what becomes of the state of one that dies."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator import logs
from orchestrator.cluster import scoring_pool
from orchestrator.cluster.scoring_pool import Ended, Job, ScoringPool, _Actor
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.training.scoring import score_state
from orchestrator.training.sequence import run_sequence

ROOT = Path(__file__).parents[3]
# A plug-in that fails where a stored state is loaded in a process that does not train
SOURCE = """
import os
import signal
from pathlib import Path

import torch

from methods.base import Method
from methods.base import Settings as Base


class Failing(Method):
    class Settings(Base):
        how: str
        marker: str

    def state_dict(self):
        return {"seen": torch.zeros(1)}

    def load_state_dict(self, state):
        with Path(self.settings.marker).open("a") as stream:
            stream.write(f"{os.getpid()}\\n")
        times = len(Path(self.settings.marker).read_text().splitlines())
        if self.settings.how == "kill" or (self.settings.how == "kill once" and times == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.settings.how == "raise":
            raise KeyError("the user's own")
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """A cluster of two CPUs; gives a folder from which its processes import."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    users = folder / "users"
    users.mkdir()
    (users / "failing_scoring.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patched:
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            patched.delenv(name)
        patched.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{users}")
        patched.syspath_prepend(str(users))
        ray.init(
            address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=str(folder / "ray")
        )
        yield users
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def pool(cluster: Path) -> Iterator[ScoringPool]:
    pool = ScoringPool(0)
    yield pool
    pool.close()


def job_of(sequence: SequencePlan, tasks_seen: int) -> Job:
    return Job(sequence, tasks_seen, Path(sequence.out) / "ray" / f"{tasks_seen}.json")


def until_done(pool: ScoringPool) -> list[Ended]:
    """What has ended when nothing is left to do."""
    ended = []
    end = time.monotonic() + 200
    while pool.is_busy:
        assert time.monotonic() < end, "waited in vain"
        ended += pool.poll()
        time.sleep(0.05)
    return ended


def scores_of(sequence: SequencePlan) -> list[dict[str, Any] | None]:
    """All scores that the store has, with predictions' counts and without what the time is of."""
    store = Store(Path(sequence.out))
    found = []
    for keys in sequence.score_keys:
        for key in keys:
            record = store.load_score(key)
            found.append(record and record | {"seconds": 0})
    return found


def process_of(sequence: SequencePlan, tasks_seen: int) -> str:
    """Which process scored a state, as its log says."""
    found = re.search(r", by (pid \d+) on ", logs.scoring_log(sequence.out, sequence.id, tasks_seen).read_text())
    assert found
    return found[1]


@pytest.mark.slow
def test_one_actor_scores_the_states_of_a_sequence_with_one_model(
    pool: ScoringPool, sequence_of: Callable[..., SequencePlan]
) -> None:
    sequence = sequence_of(stream={"first": 3})
    run_sequence(sequence, evaluate=False)
    jobs = [job_of(sequence, tasks_seen) for tasks_seen in range(4)]
    # one that is there before its first job: no other one is started
    pool.start_actor()
    for job in jobs:
        pool.submit(job)
        assert until_done(pool) == [Ended(job)]
    assert len({process_of(sequence, tasks_seen) for tasks_seen in range(4)}) == len(pool.actors) == 1
    built = []
    for tasks_seen in range(4):
        if "a new learner" in logs.scoring_log(sequence.out, sequence.id, tasks_seen).read_text():
            built.append(tasks_seen)
    assert built == [0]
    alone = sequence_of("alone", stream={"first": 3})
    run_sequence(alone, evaluate=False)
    for tasks_seen in range(4):
        score_state(alone, tasks_seen)
    assert None not in scores_of(sequence)
    assert scores_of(sequence) == scores_of(alone)


def failing(cluster: Path, how: str, sequence_of: Callable[..., SequencePlan]) -> tuple[SequencePlan, Path]:
    """A sequence whose one state is stored; and the file in which each loading of it has left a line."""
    marker = cluster / f"{how} {time.monotonic_ns()}"
    plugin = {"name": "failing_scoring.Failing", "how": how, "marker": str(marker)}
    sequence = sequence_of(
        how.replace(" ", "-"), stream={"first": 1}, methods=[{"tuning": "full", "plugins": [plugin]}]
    )
    run_sequence(sequence, evaluate=False)
    return sequence, marker


@pytest.mark.slow
def test_the_state_of_an_actor_that_died_is_scored_by_another(
    cluster: Path, pool: ScoringPool, sequence_of: Callable[..., SequencePlan]
) -> None:
    sequence, marker = failing(cluster, "kill once", sequence_of)
    job = job_of(sequence, 1)
    pool.submit(job)
    assert until_done(pool) == [Ended(job)]
    assert job.deaths == 1
    assert len(set(marker.read_text().split())) == 2, "two processes tried"
    assert scores_of(sequence)[1]
    assert len(pool.actors) == 1, "the dead one is let go"


@pytest.mark.slow
def test_a_state_over_which_actors_die_is_given_up(
    cluster: Path, pool: ScoringPool, sequence_of: Callable[..., SequencePlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    # by default three: each takes the seconds in which an actor starts
    assert scoring_pool.MAX_RETRIES == 3
    monkeypatch.setattr(scoring_pool, "MAX_RETRIES", 1)
    sequence, marker = failing(cluster, "kill", sequence_of)
    pool.submit(job_of(sequence, 1))
    (ended,) = until_done(pool)
    assert isinstance(ended.error, ray.exceptions.RayActorError)
    assert len(marker.read_text().split()) == 2
    assert scores_of(sequence) == [None, None]


@pytest.mark.slow
def test_an_error_of_its_own_is_told_once_and_the_actor_goes_on(
    cluster: Path, pool: ScoringPool, sequence_of: Callable[..., SequencePlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence, marker = failing(cluster, "raise", sequence_of)
    pool.submit(job_of(sequence, 1))
    (ended,) = until_done(pool)
    assert isinstance(ended.error, ray.exceptions.RayTaskError)
    assert str(ended.error.cause) == 'KeyError: "the user\'s own"'
    assert len(marker.read_text().split()) == 1, "it would fail again"
    assert "FAILED scoring the state after task 'reviews'" in logs.scoring_log(sequence.out, sequence.id, 1).read_text()
    pool.submit(job_of(sequence, 0))
    assert until_done(pool)[0].error is None
    assert process_of(sequence, 0) == process_of(sequence, 1)
    monkeypatch.setattr(scoring_pool, "IDLE_SECONDS", 0.0)
    pool.poll()
    assert pool.actors == [], "what waits for nothing holds no CPU"


def test_an_actor_goes_on_with_the_sequence_whose_model_it_has(sequence_of: Callable[..., SequencePlan]) -> None:
    first = sequence_of(stream={"first": 2})
    second = sequence_of(stream={"first": 2}, seeds=[8])
    pool = ScoringPool(0)
    for sequence, tasks_seen in ((first, 0), (second, 0), (second, 1), (first, 1)):
        pool.submit(job_of(sequence, tasks_seen))
    of_second = _Actor(None, None, sequence_id=second.id)
    of_none = _Actor(None, None)
    taken = []
    for actor in (of_second, of_none, of_second, of_second):
        job = pool._next_for(actor)
        taken.append((job.sequence.seed, job.tasks_seen))
    assert taken == [(8, 0), (7, 0), (8, 1), (7, 1)]
    assert not pool.is_busy
