"""The subject of the checks: the small run that it is put into, and the arithmetic that makes two runs comparable."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from methods import method_spec
from methods.masking.migu import Migu
from orchestrator.contract.subject import Subject, exact_arithmetic, stored_state, stored_weights


def test_a_plugin_is_put_on_the_subjects_tuning_method(tmp_path: Path) -> None:
    subject = Subject("migu", tmp_path, tuning="lora")
    assert (subject.type, subject.card, subject.is_tuning) == (Migu, Migu.card, False)
    spec = method_spec(subject.spec(ratio=0.7))
    assert spec.tuning.name == "lora"
    assert [(part.name, part.settings["ratio"]) for part in spec.plugins] == [("migu", 0.7)]
    assert method_spec(subject.plain()).label == "plain"
    assert method_spec(subject.plain()).tuning.name == "lora"


def test_a_tuning_method_is_put_in_its_place_with_its_quick_settings(tmp_path: Path) -> None:
    subject = Subject("coso", tmp_path)
    assert subject.is_tuning
    quick = subject.card.quick
    assert quick
    settings = method_spec(subject.spec()).tuning.settings
    assert quick.items() <= settings.items()
    assert method_spec(subject.spec()).plugins == ()
    name, value = next(iter(quick.items()))
    assert method_spec(subject.spec(**{name: value + 1})).tuning.settings[name] == value + 1, "what is given wins"


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-bert", "tiny-llama"])
def test_the_run_is_two_steps_on_each_of_three_tasks(model: str, tmp_path: Path) -> None:
    """Sixteen examples in batches of eight, each of two micro-batches."""
    sequence = Subject("full", tmp_path, model).sequence("store", {"tuning": "full"}, lr=0.5)
    assert len(sequence.tasks) == 3
    assert {len(task.read("train")) for task in sequence.open_stream().tasks} == {16}
    assert (sequence.training.global_batch, sequence.training.micro_batch, sequence.training.epochs) == (8, 4, 1)
    assert sequence.training.lr == 0.5
    assert sequence.out == str(tmp_path / "store")


def test_what_was_trained_is_in_the_store(tmp_path: Path) -> None:
    subject = Subject("ewc", tmp_path, "tiny-bert")
    sequence, notes = subject.observed_run
    assert subject.observed_run[1] is notes, "it is run once for all checks that look at it"
    assert len(notes.after_task) == 3
    for task_id in range(3):
        weights = stored_weights(sequence, task_id + 1)
        assert weights.keys() == notes.after_task[task_id].keys()
        assert all(torch.equal(weight, notes.after_task[task_id][name]) for name, weight in weights.items())
        assert len(stored_state(sequence, task_id + 1).history["steps"]) == 2
    assert list(stored_state(sequence, 3).method) == ["0:ewc"]


def test_exact_arithmetic_ends_with_the_block_also_after_an_error() -> None:
    torch.set_num_threads(2)
    with pytest.raises(KeyError), exact_arithmetic(torch.float64):
        assert torch.get_num_threads() == 1
        assert torch.zeros(1).dtype == torch.float64
        raise KeyError("x")
    assert torch.get_num_threads() == 2
    assert torch.zeros(1).dtype == torch.float32
    with exact_arithmetic():
        assert torch.zeros(1).dtype == torch.float32
