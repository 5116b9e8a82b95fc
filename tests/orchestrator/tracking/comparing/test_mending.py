"""A store that was damaged in every way is afterwards as it was before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlflow

from orchestrator.tracking import MlflowSync
from tests.orchestrator.tracking.comparing import damages
from tests.orchestrator.tracking.journals import Copied, begun, ended, write


def settled(copied: Copied) -> MlflowSync:
    """The copy after it was compared and mended."""
    sync = MlflowSync(copied.uri, "test", str(copied.out), every_point=True)
    sync.follow(["s"])
    assert sync.close(60), (sync.trouble, sync.differences)
    return sync


def ids(copied: Copied) -> set[str]:
    """Those of the active runs."""
    client = mlflow.MlflowClient(copied.uri)
    experiment = client.get_experiment_by_name("test")
    assert experiment
    return {run.info.run_id for run in client.search_runs([experiment.experiment_id])}


def test_what_differs_is_mended_in_place(whole: Copied, damaged: Callable[..., Copied]) -> None:
    """No run is made anew for what can be added to it, and what is there twice is there once."""
    copied = damaged(
        damages.left_running,
        damages.without_a_point,
        damages.without_a_metric,
        damages.with_a_second_model,
        damages.below_another_run,
        damages.without_a_parameter,
        damages.with_a_second_run,
    )
    before = ids(whole)
    sync = settled(copied)
    assert len(sync.mended) == 7
    assert copied.rows() == whole.rows()
    assert ids(copied) == before
    state = copied.state()
    assert settled(copied).mended == []
    assert copied.state() == state


def test_a_run_that_says_too_much_is_replaced(whole: Copied, damaged: Callable[..., Copied]) -> None:
    copied = damaged(damages.with_a_point_too_many, damages.without_its_model)
    sync = settled(copied)
    assert sync.mended[0] == "run 'mine · papers · seed 3' has 2 points of aa in place of 1"
    assert copied.rows() == whole.rows()
    client = mlflow.MlflowClient(copied.uri)
    (task,) = [client.get_run(run_id) for run_id in ids(copied) & ids(whole)]
    (parent,) = ids(copied) - ids(whole)
    assert task.data.tags["mlflow.parentRunId"] == parent


def test_after_a_copy_its_end_is_compared_of_itself(whole: Copied, damaged: Callable[..., Copied]) -> None:
    """As at the end of a run: of what was copied, and whether it is there, once."""
    copied = damaged(damages.with_a_second_run)
    sync = MlflowSync(copied.uri, "test", str(copied.out))
    sync.follow(["s"])
    assert sync.close(60)
    assert sync.mended == [], "nothing was copied"
    write(copied.out, ended()[:1])
    lines: list[str] = []
    sync = MlflowSync(copied.uri, "test", str(copied.out), tell=lines.append)
    sync.follow(["s"])
    assert sync.close(60), sync.trouble
    assert sync.mended == ["run 'mine · papers · seed 3' is there 2 times"]
    assert lines == [f"MLflow differed from the journals in 1 thing(s), which is mended: {sync.mended[0]}"]
    assert copied.rows()["runs"] == whole.rows()["runs"]


def test_on_a_server_that_is_shared_nothing_of_others_is_deleted_unasked(
    tmp_path: Path, damaged: Callable[..., Copied]
) -> None:
    """The same experiment of another folder has written into the same runs, at other times."""
    copied = damaged()
    other = Copied(tmp_path / "other")
    later = [event.model_copy(update={"time": event.time + 10_000}) for event in (*begun(), *ended())]
    write(other.out, later)
    before = ids(copied)
    other.copy(copied.uri)
    write(copied.out, ended()[:1])
    copied.copy()
    assert ids(copied) == before
    losses = [time for key, _, _, time in copied.rows()["metrics"] if key == "loss"]
    assert {time > 10_000 for time in losses} == {True, False}
