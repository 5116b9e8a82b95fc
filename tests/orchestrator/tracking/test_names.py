"""Names that MLflow takes."""

from __future__ import annotations

from pathlib import Path

from mlflow.entities import Dataset, DatasetInput, Metric, Param

from orchestrator.tracking.connection import Connection
from orchestrator.tracking.names import flatten, plain_name, probes_by_key, safe_key, scores_by_key, short
from orchestrator.tracking.runs import Runs
from tests.orchestrator.store.examples import probe, score


def test_nested_settings_are_flattened_by_their_path() -> None:
    nested = {"lr": 1e-3, "method": {"plugins": [{"name": "migu"}, {"name": "ewc"}]}, "betas": [0.9, 0.999]}
    assert flatten(nested) == {
        "lr": 1e-3,
        "method.plugins.0.name": "migu",
        "method.plugins.1.name": "ewc",
        "betas": [0.9, 0.999],
    }


def test_scores_go_by_what_they_count() -> None:
    event = score(1, 0, 50.0).model_copy(update={"task": "yelp", "score_options": 60.0})
    for scorer in ("exact-match", "verbatim", "accuracy", "numeric"):
        assert scores_by_key(event, scorer) == {"accuracy/yelp": 50.0, "accuracy_options/yelp": 60.0}
    assert scores_by_key(event, "rouge-l") == {"rouge-l/yelp": 50.0, "rouge-l_options/yelp": 60.0}


def test_a_benchmark_has_all_its_numbers() -> None:
    numbers = {"probe/films-2/acc": 20.0, "probe/films-2/acc_norm -x-": 1.0}
    assert probes_by_key(probe(1, "films:2", 20.0)) == numbers


def test_signs_that_are_not_allowed_are_replaced() -> None:
    assert plain_name("1-a/b:c.d%e\"f'g · h") == "1-a-b-c-d-e-f-g · h"
    assert safe_key("accuracy/yelp (5*)") == "accuracy/yelp -5--"
    assert safe_key("a_b-c. d/é") == "a_b-c. d/é"


def test_mlflow_takes_whatever_a_task_is_called(store: str, tmp_path: Path) -> None:
    names = [
        "..",
        ".",
        "a//b",
        "/a",
        "a/",
        "./a",
        "a/../b",
        "",
        "x" * 600,
        "a\nb",
        "a:c",
        "é²",
        "日本",
        "🎉",
        "it's",
        "100%",
    ]
    runs = Runs(Connection(store, str(tmp_path), str(tmp_path)))
    keys = {safe_key(f"accuracy/{name}") for name in names}
    assert len(keys) == len(names)
    for name in names:
        run_id = runs.create({}, f"1 {name}", None, 1)
        runs.log_metrics(run_id, [Metric(safe_key(f"accuracy/{name}"), 1.0, 1, 1)])
        runs.client.log_batch(run_id, params=[Param(safe_key(name), "1")])
        runs.client.log_inputs(run_id, [DatasetInput(Dataset(short(name, 500), "0" * 36, "local", "{}"), [])])
        runs.client.create_logged_model(runs.experiment_id, plain_name(f"1-{name}"), params={"task": name})
    assert len(runs.client.get_run(run_id).info.run_name) <= 250


def test_what_is_cut_is_still_told_apart() -> None:
    one, other = (safe_key("x" * 300 + end) for end in "ab")
    assert one != other
    assert len(one) == len(other) == 250
    assert short("x" * 250, 250) == "x" * 250
