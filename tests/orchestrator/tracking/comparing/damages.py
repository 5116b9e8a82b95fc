"""What can be otherwise in a store than the journals say."""

from __future__ import annotations

from typing import Any

from mlflow.entities import LoggedModelOutput, Metric

from orchestrator.store.identities import RunIdentity
from orchestrator.tracking.database import connected, database_file
from orchestrator.tracking.logged_models import find_models
from orchestrator.tracking.runs import Runs

WHOLE = RunIdentity("s")
TASK = RunIdentity("s", 0)


def of(runs: Runs, identity: RunIdentity) -> str:
    """The id of a run that is there."""
    run_id = runs.find(identity.tags())
    assert run_id
    return run_id


def execute(runs: Runs, statement: str, *values: Any) -> None:
    """Change the database itself."""
    file = database_file(runs.connection.uri)
    assert file
    with connected(file) as database:
        assert database.execute(statement, values).rowcount > 0
        database.commit()


def left_running(runs: Runs) -> None:
    """As where the answer to its end was lost."""
    runs.begin(of(runs, WHOLE))


def without_a_task(runs: Runs) -> None:
    """Its run is gone."""
    runs.client.delete_run(of(runs, TASK))


def without_a_point(runs: Runs) -> None:
    """One in the middle, which no last value tells."""
    execute(runs, "DELETE FROM metrics WHERE key = 'loss' AND step = 2 AND run_uuid = ?", of(runs, TASK))


def without_a_metric(runs: Runs) -> None:
    """All of one key."""
    for table in ("metrics", "latest_metrics"):
        execute(runs, f"DELETE FROM {table} WHERE key = 'train_seconds' AND run_uuid = ?", of(runs, WHOLE))


def with_a_point_too_many(runs: Runs) -> None:
    """The same summary at another time, which MLflow cannot take back."""
    runs.client.log_batch(of(runs, WHOLE), metrics=[Metric("aa", 70.0, 999, 1)])


def with_a_second_run(runs: Runs) -> None:
    """Another one of the whole, which has less."""
    run_id = runs.create(WHOLE.tags(), "mine · papers · seed 3", None, 100)
    runs.client.log_batch(run_id, metrics=[Metric("loss", 1.0, 210, 1)])


def with_a_second_model(runs: Runs) -> None:
    """As where only the answer was lost."""
    runs.client.create_logged_model(
        runs.experiment_id, name="1-a", tags=TASK.model_tags(), source_run_id=of(runs, TASK)
    )


def below_another_run(runs: Runs) -> None:
    """The task's."""
    runs.set_tag(of(runs, TASK), "mlflow.parentRunId", "0" * 32)


def without_a_parameter(runs: Runs) -> None:
    execute(runs, "DELETE FROM params WHERE key = 'seed' AND run_uuid = ?", of(runs, WHOLE))


def with_another_tag(runs: Runs) -> None:
    runs.set_tag(of(runs, TASK), "orchestrator.reused", "true")


def without_its_model(runs: Runs) -> None:
    (model,) = find_models(runs.client, runs.experiment_id, TASK)
    runs.client.delete_logged_model(model.model_id)


def with_the_output_of_another(runs: Runs) -> None:
    """A model that is none of the run's, and its own not named."""
    execute(runs, "DELETE FROM inputs WHERE source_id = ?", of(runs, TASK))
    runs.client.log_outputs(of(runs, TASK), [LoggedModelOutput("m-" + "0" * 32, 0)])


# each with the words by which it is known
DAMAGES = {
    left_running: "is RUNNING in place of FINISHED",
    without_a_task: "run '1 a' is missing",
    without_a_point: "has 2 points of loss in place of 3",
    without_a_metric: "lacks the metric train_seconds",
    with_a_point_too_many: "has 2 points of aa in place of 1",
    with_a_second_run: "is there 2 times",
    with_a_second_model: "the model of run '1 a' is there 2 times",
    below_another_run: "run '1 a' hangs below another run",
    without_a_parameter: "lacks 1 parameter(s)",
    with_another_tag: "has another tag orchestrator.reused",
    without_its_model: "the model of run '1 a' is missing",
    with_the_output_of_another: "run '1 a' does not name its model",
}
