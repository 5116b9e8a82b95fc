"""What sequences, tasks and checkpoints are called in MLflow."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.tracking.sequence_names import method_name, model_name, run_tags, sequence_name
from tests.orchestrator.store.examples import checkpoint, started


def sequence(method: dict[str, Any], **stream: Any) -> dict[str, Any]:
    """A sequence's settings as its journal has them."""
    whole = {
        "name": "",
        "tuning": {"name": "lora"},
        "plugins": [{"name": "replay"}, {"name": "migu"}],
        "reference": None,
    }
    return {"method": whole | method, "stream": {"name": "order1", **stream}, "seed": 7}


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ({"name": "mine"}, "mine"),
        ({"name": "mine", "reference": "joint"}, "mine"),
        ({}, "lora+replay+migu"),
        ({"plugins": []}, "lora"),
        ({"plugins": [], "reference": "joint"}, "lora (joint)"),
    ],
)
def test_a_method_is_called_as_its_user_does_or_by_its_parts(method: dict[str, Any], name: str) -> None:
    assert method_name(sequence(method)) == name


def test_an_old_journal_knows_no_reference_run() -> None:
    old = sequence({})
    del old["method"]["reference"]
    assert method_name(old) == "lora+replay+migu"


def test_a_run_is_named_by_method_stream_and_seed_and_by_the_one_task_if_there_is_one() -> None:
    assert sequence_name(sequence({})) == "lora+replay+migu · order1 · seed 7"
    assert sequence_name(sequence({"name": "expert"}, only="CB")) == "expert · order1 · CB · seed 7"


def test_a_model_is_named_by_its_place_counted_from_one_without_forbidden_signs() -> None:
    event = checkpoint(2).model_copy(update={"task": "glue/rte: 50%"})
    assert model_name(sequence({"name": "a.b"}), event) == "3-glue-rte- 50- · a-b · seed 7"


@pytest.mark.parametrize("commit", [None, "abc123"])
def test_runs_are_filtered_by_method_stream_and_commit(commit: str | None) -> None:
    start = started("a").model_copy(update={"sequence": sequence({"name": "mine"}), "git_commit": commit})
    expected = {"orchestrator.method": "mine", "orchestrator.stream": "order1"}
    if commit:
        expected["mlflow.source.git.commit"] = "abc123"
    assert run_tags(start) == expected
