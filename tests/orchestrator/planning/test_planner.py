"""What is refused once data and models are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.loading import load_config
from orchestrator.errors import UserError
from orchestrator.planning.planner import plan
from tests.conftest import small_config


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["model.name=tiny-t6"], ["unknown model 'tiny-t6'", "Did you mean 'tiny-t5'?"]),
        (["model.name=/no/such/folder"], ["model folder '/no/such/folder' does not exist"]),
        (["model.scoring=head"], ["model.scoring: 'head' goes with encoders"]),
        (["model.name=tiny-bert", "model.scoring=generate"], ["cannot generate; allowed: head, similarity"]),
        (["streams=[{name: order1, folder: /no/such/folder}]"], ["'/no/such/folder' does not exist"]),
        (["training.epochs_per_task={nope: 2}"], ["has no task 'nope'", "reviews"]),
        (["model.name=minilm", "model.overrides={a: 1}"], ["overrides go with the built-in models only"]),
    ],
)
def test_what_is_wrong_with_data_and_models(overrides: list[str], parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        plan(load_config(None, overrides))
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def open_folder(folder: Path) -> str:
    """A folder with one task of open answers."""
    task = folder / "QA" / "capitals"
    task.mkdir(parents=True)
    rows = ", ".join(f'{{"sentence": "word {i}", "label": "answer {i}"}}' for i in range(20))
    for split in ("train", "test"):
        (task / f"{split}.json").write_text(f"[{rows}]")
    (task / "labels.json").write_text("[]")
    return str(folder)


def plan_open(folder: Path, out: Path, **changes: Any) -> None:
    streams = [{"name": "mine", "folder": open_folder(folder), "tasks": ["capitals"]}]
    plan(small_config(out, streams=streams, **changes))


def test_open_answers_need_a_model_that_generates(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task 'capitals' has no label set, and 'tiny-bert' is an encoder"):
        plan_open(tmp_path / "data", tmp_path / "out", model="tiny-bert")
    plan_open(tmp_path / "more", tmp_path / "out", methods=["ft", "zero-shot"])


def test_open_answers_need_a_method_that_generates(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no label set, and method 'nmc' answers with one of the labels"):
        plan_open(tmp_path / "data", tmp_path / "out", methods=["nmc"])


def test_each_seed_has_its_order_of_classes(tmp_path: Path) -> None:
    stream = {"name": "embedded", "labels_per_task": 2, "class_order": "by-seed", "max_train": 8, "max_test": 4}
    sequences = plan(small_config(tmp_path, streams=[stream], methods=["ft"], seeds=[1, 2, 3]))
    assert [sequence.stream.class_order for sequence in sequences] == [1, 2, 3]
    assert len({sequence.stream.name for sequence in sequences}) == 1
    assert len({sequence.tasks for sequence in sequences}) == 1
    # what a worker opens is what was planned
    assert sequences[1].open_stream().task_names == sequences[1].tasks
    assert len({sequence.open_stream().tasks[2].train_hash for sequence in sequences}) > 1
