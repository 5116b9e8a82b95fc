"""What is refused once data and models are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.loading import load_config
from orchestrator.errors import UserError
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from tests.conftest import small_config
from tests.orchestrator.planning.test_suitability import open_folder


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["model.name=tiny-t6"], ["unknown model 'tiny-t6'", "Did you mean 'tiny-t5'?"]),
        (["model.name=/no/such/folder"], ["model folder '/no/such/folder' does not exist"]),
        (
            ["model.attention=flash_attention_2"],
            ["model.attention: 'flash_attention_2' does not go with 'tiny-t5' here:"],
        ),
        (["model.attention=fast"], ["model.attention", "'auto', 'eager', 'sdpa' or 'flash_attention_2'"]),
        (["model.base=bf16"], ["model.base: 'bf16' goes with model.precision: bf16"]),
        (
            ["model.base=bf16", "model.precision=bf16"],
            ["'ft' on model 'tiny-t5': model.base: 'bf16' is for weights that"],
        ),
        (["model.scoring=head"], ["model.scoring: 'head' goes with encoders", "allowed: generate, rank, constrained"]),
        (["model.name=tiny-bert", "model.scoring=generate"], ["cannot generate; allowed: head, similarity"]),
        (["model.name=tiny-bert", "model.scoring=rank"], ["'rank': 'tiny-bert' is an encoder and cannot generate"]),
        (["streams=[{name: order1, folder: /no/such/folder}]"], ["'/no/such/folder' does not exist"]),
        (["training.epochs_per_task={nope: 2}"], ["has no task 'nope'", "reviews"]),
        (["model.revision=abc"], ["model.revision: 'abc' goes with models of the hub; 'tiny-t5' is built in"]),
        (["model.name=minilm", "model.revision=abc"], ["'minilm' is of an installed package"]),
        (["model.name=tests", "model.revision=abc"], ["'tests' is a folder, known by its content"]),
        (["model.name=minilm", "model.overrides={a: 1}"], ["overrides go with the built-in models only"]),
    ],
)
def test_what_is_wrong_with_data_and_models(overrides: list[str], parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        plan(load_config(None, overrides))
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_each_seed_has_its_order_of_classes(tmp_path: Path) -> None:
    stream = {"name": "embedded", "labels_per_task": 2, "class_order": "by-seed", "max_train": 8, "max_test": 4}
    sequences = plan(small_config(tmp_path, streams=[stream], methods=["ft"], seeds=[1, 2, 3]))
    assert [sequence.stream.class_order for sequence in sequences] == [1, 2, 3]
    assert len({sequence.stream.name for sequence in sequences}) == 1
    assert len({sequence.tasks for sequence in sequences}) == 1
    # what a worker opens is what was planned
    assert sequences[1].open_stream().task_names == sequences[1].tasks
    assert len({sequence.open_stream().tasks[2].train_hash for sequence in sequences}) > 1


def test_labels_that_are_one_to_the_scorer_are_refused_unless_it_is_another(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "data", '["C", "C++"]', "C")
    stream = {"name": "mine", "folder": folder, "tasks": ["capitals"]}
    with pytest.raises(
        UserError, match="task 'capitals': the labels 'C' and 'C\\+\\+' are equal to the scorer 'exact-match'"
    ):
        plan(small_config(tmp_path / "out", streams=[stream]))
    (published,) = plan(small_config(tmp_path / "out", streams=["embedded"], methods=["ft"]))
    (verbatim,) = plan(
        small_config(tmp_path / "out", streams=[{"name": "embedded", "scorer": "verbatim"}], methods=["ft"])
    )
    # another scorer trains nothing anew, and takes no score of the other's
    assert verbatim.keys == published.keys
    assert not set(verbatim.score_keys[-1]) & set(published.score_keys[-1])
    plan(small_config(tmp_path / "out", streams=[{**stream, "scorer": "verbatim"}]))


def test_doubtful_data_is_told_once(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "data", '["C", "B"]', "C", seen=2)
    told: list[str] = []
    stream = {"name": "mine", "folder": folder, "tasks": ["capitals"]}
    plan(small_config(tmp_path / "out", streams=[stream], methods=["ft", "expert"], seeds=[1, 2]), warn=told.append)
    assert len(told) == 2
    assert "all 18 train rows have the label 'C'" in told[0]
    assert told[1] == "stream 'mine', task 'capitals': 2 of 20 test texts (10 %) are train texts too"


def test_leaking_data_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    stream = {"name": "mine", "folder": open_folder(tmp_path / "data", seen=5), "tasks": ["capitals"]}
    with pytest.raises(UserError) as caught:
        plan(small_config(tmp_path / "out", streams=[stream]))
    assert str(caught.value) == (
        "stream 'mine', task 'capitals': 5 of 20 test texts (25 %) are train texts too; "
        "`allow: [train-test-overlap]` in the stream's entry trains on it all the same"
    )
    with pytest.raises(UserError, match="5 of 20 test texts"):
        plan(small_config(tmp_path / "out", streams=[{**stream, "allow": ["dev-is-test", "same-task-twice"]}]))
    told: list[str] = []
    allowed = {**stream, "allow": ["train-test-overlap"]}
    plan(small_config(tmp_path / "out", streams=[allowed]), warn=told.append)
    assert told == ["stream 'mine', task 'capitals': 5 of 20 test texts (25 %) are train texts too (allowed)"]


def test_what_is_allowed_is_in_no_key_and_in_no_name(tmp_path: Path) -> None:
    (usual,) = plan(small_config(tmp_path))
    (allowing,) = plan(small_config(tmp_path, stream={"allow": ["train-test-overlap"]}))
    assert allowing.stream.allow == ("train-test-overlap",)
    assert (usual.id, usual.keys, usual.score_keys) == (allowing.id, allowing.keys, allowing.score_keys)
    assert "allow" not in usual.stream.model_dump()
    assert SequencePlan.model_validate(allowing.model_dump(mode="json")) == allowing


def test_a_part_without_a_source_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "compiled_part.py").write_text(
        "from methods import Method, Settings\n\nclass Part(Method):\n    Settings = Settings\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("methods.source_code._read", lambda spec, name: None)
    method = {"plugins": ["compiled_part.Part"]}
    said: list[str] = []
    plan(small_config(tmp_path, methods=["ft", method], seeds=[1, 2], stream={"first": 2}), warn=said.append)
    (line,) = [line for line in said if "source" in line]
    assert line.startswith("compiled_part.Part: no source of compiled_part was found")


def test_the_epochs_of_a_scenario_are_those_of_the_plan_and_of_its_keys(tmp_path: Path) -> None:
    def keys(scenario: dict[str, Any], **changes: Any) -> tuple[str, ...]:
        stream = {"scenario": {"name": "subset", "fraction": 0.5, **scenario}}
        (sequence,) = plan(small_config(tmp_path, stream=stream, **changes))
        return sequence.keys

    thrice = keys({"epochs": 3})
    assert thrice == keys({}, training={"epochs": 3}) != keys({})
    with pytest.raises(UserError, match=r"its scenario gives epochs, and training\.budget takes the place"):
        keys({"epochs": 3}, training={"budget": {"steps": 3}})
    with pytest.raises(UserError, match=r"stream 'embedded': scenario 'recurrence': positions: 3, but the last of 5"):
        plan(small_config(tmp_path, stream={"scenario": {"name": "recurrence", "positions": 3}}))
