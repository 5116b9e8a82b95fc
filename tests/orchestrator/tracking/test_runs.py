"""Runs that others hang below: found by their key by whoever comes later, and never made twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.tracking.connection import Connection
from orchestrator.tracking.runs import Runs

CHAIN = [("search:mine", "mine: search"), ("search:mine/ft-000", "mine-ft-000")]


@pytest.fixture
def parents(store: str, tmp_path: Path) -> Runs:
    """The runs of an experiment of its own."""
    return Runs(Connection(store, str(tmp_path), str(tmp_path)))


def test_a_chain_is_made_from_the_top_and_its_last_run_given(parents: Runs) -> None:
    last = parents.last_of(CHAIN, started=123)
    assert last is not None
    run = parents.client.get_run(last)
    assert (run.info.run_name, run.info.start_time) == ("mine-ft-000", 123)
    assert run.data.tags["orchestrator.node"] == "search:mine/ft-000"
    above = parents.client.get_run(run.data.tags["mlflow.parentRunId"])
    assert above.info.run_name == "mine: search"
    assert "mlflow.parentRunId" not in above.data.tags
    assert parents.last_of([], started=1) is None


def test_another_process_finds_what_is_there_by_its_key(parents: Runs) -> None:
    """Whatever it would call the run."""
    first = parents.last_of(CHAIN, started=123)
    later = Runs(parents.connection)
    renamed = [(key, "another name") for key, _ in CHAIN]
    assert later.last_of(renamed, started=456) == parents.last_of(CHAIN, started=456) == first
    beside = later.last_of([CHAIN[0], ("search:mine/ft-001", "mine-ft-001")], started=456)
    assert beside != first
    assert len(parents.client.search_runs([parents.experiment_id])) == 3


def test_a_run_is_found_by_all_of_its_tags(parents: Runs) -> None:
    one = parents.create({"a.x": "1", "b": "1"}, "one", None, 1)
    other = parents.create({"a.x": "1", "b": "2"}, "other", None, 1)
    assert parents.find({"a.x": "1", "b": "1"}) == one
    assert parents.find({"a.x": "1", "b": "2"}) == other
    assert parents.find({"a.x": "2", "b": "2"}) is None


def test_more_parameters_than_a_call_takes_are_logged_once_cut_and_under_safe_keys(parents: Runs) -> None:
    run_id = parents.create({}, "run", None, 1)
    values = {f"key {number}": number for number in range(230)}
    parents.log_params(run_id, {**values, "long": "x" * 501, "odd(key)": True})
    logged = parents.client.get_run(run_id).data.params
    assert len(logged) == 232
    assert (logged["key 229"], logged["long"], logged["odd-key-"]) == ("229", "x" * 500, "True")
    # MLflow would raise where one changed
    parents.log_params(run_id, {"key 1": "another", "odd(key)": False, "new": None})
    again = parents.client.get_run(run_id).data.params
    assert again == {**logged, "new": "None"}
