"""The files of a state: what is in which, and that tensors and plain values come back as they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from orchestrator.store.states.state_files import ResumeState, State, pack_state, read_history, read_state, write_state

HISTORY = {"seconds": 1.5, "steps": [{"step": 1, "loss": 0.5}]}


def test_tensors_are_named_by_their_path_and_plain_values_stay_beside_them(tmp_path: Path) -> None:
    memory = {"0:ewc": {"fisher": {"a.weight": torch.ones(2)}, "count": 3, "none": None}, "0:none": {}}
    write_state(tmp_path, pack_state(State({"a.weight": torch.arange(3.0)}, memory, HISTORY)))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "history.json", "method.json", "method.safetensors", "weights.safetensors",
    ]  # fmt: skip
    assert load_file(tmp_path / "weights.safetensors")["a.weight"].tolist() == [0.0, 1.0, 2.0]
    assert list(load_file(tmp_path / "method.safetensors")) == ["0:ewc/fisher/a.weight"]
    assert json.loads((tmp_path / "method.json").read_text()) == {
        "0:ewc": {"fisher": {"a.weight": {"tensor": "0:ewc/fisher/a.weight"}}, "count": 3, "none": None},
        "0:none": {},
    }
    assert read_history(tmp_path) == HISTORY


def test_two_names_for_one_memory_and_views_are_saved(tmp_path: Path) -> None:
    """safetensors refuses both."""
    shared = torch.arange(6.0).reshape(2, 3)
    write_state(
        tmp_path, pack_state(State({"w": shared.T.requires_grad_()}, {"m": {"one": shared, "other": shared}}, {}))
    )
    state = read_state(tmp_path, resume_state=False)
    assert state.weights["w"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    assert state.method["m"]["one"].tolist() == state.method["m"]["other"].tolist() == [[0, 1, 2], [3, 4, 5]]
    state.method["m"]["one"][0, 0] = 9.0
    assert state.method["m"]["other"][0, 0] == 0.0


def test_later_training_changes_nothing_in_a_packed_state(tmp_path: Path) -> None:
    weight, memory, resumed, moment = (torch.arange(4.0) + number for number in range(4))
    state = State({"w": weight}, {"m": {"x": memory}}, {}, ResumeState({"w": resumed}, {"w": {"v": moment}}))
    packed = pack_state(state)
    for tensor in (weight, memory, resumed, moment):
        tensor.fill_(-1.0)
    write_state(tmp_path, packed)
    read = read_state(tmp_path, resume_state=True)
    assert read.resume_state
    assert read.weights["w"].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert read.method["m"]["x"].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert read.resume_state.weights["w"].tolist() == [2.0, 3.0, 4.0, 5.0]
    assert read.resume_state.optimizer_state["w"]["v"].tolist() == [3.0, 4.0, 5.0, 6.0]


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes"])
def test_a_value_that_is_neither_tensor_nor_plain_is_refused_by_its_path(tmp_path: Path, value: object) -> None:
    kind = type(value).__name__
    with pytest.raises(TypeError, match=f"method state 'm/inner/x' is a {kind}: only tensors and plain values"):
        write_state(tmp_path, pack_state(State({}, {"m": {"inner": {"x": value}}}, {})))
    assert list(tmp_path.iterdir()) == [], "it is asked before anything is written"


def test_a_resume_state_is_read_where_it_is_wanted(tmp_path: Path) -> None:
    optimizer_state = {
        "a.weight": {"step": torch.tensor(3.0), "exp_avg": torch.ones(2, 3)},
        "b": {"step": torch.tensor(2.0)},
    }
    resume_state = ResumeState({"a.weight": torch.zeros(2, 3)}, optimizer_state)
    write_state(tmp_path, pack_state(State({"a.weight": torch.ones(2, 3)}, {}, {}, resume_state)))
    assert read_state(tmp_path, resume_state=False).resume_state is None
    state = read_state(tmp_path, resume_state=True)
    assert state.weights["a.weight"].sum() == 6
    found = state.resume_state
    assert found
    assert {name: weight.tolist() for name, weight in found.weights.items()} == {"a.weight": [[0.0] * 3] * 2}
    assert found.optimizer_state.keys() == optimizer_state.keys()
    for parameter, entries in optimizer_state.items():
        assert found.optimizer_state[parameter].keys() == entries.keys()
        for name, entry in entries.items():
            assert torch.equal(found.optimizer_state[parameter][name], entry)


def test_a_state_without_a_resume_state_has_none_to_read(tmp_path: Path) -> None:
    write_state(tmp_path, pack_state(State({}, {}, {})))
    assert read_state(tmp_path, resume_state=True).resume_state is None


def test_what_a_run_goes_on_from_lies_in_memory_as_it_did_before(tmp_path: Path) -> None:
    """A kernel rounds differently where a tensor begins elsewhere; torch's own memory begins at multiples of 64 bytes."""
    memory = {f"m{size}": torch.arange(float(size)) for size in (1, 3, 5, 7)}
    weights = {"a": torch.zeros(3), "b": torch.ones(5)}
    resume_state = ResumeState(weights, {"a": {"step": torch.ones(1), "v": torch.ones(3)}})
    write_state(tmp_path, pack_state(State({}, {"0:part": memory}, {}, resume_state)))
    loaded = read_state(tmp_path, resume_state=True)
    assert loaded.resume_state
    tensors = [*loaded.method["0:part"].values(), *loaded.resume_state.weights.values()]
    tensors += loaded.resume_state.optimizer_state["a"].values()
    assert [tensor.data_ptr() % 64 for tensor in tensors] == [0] * 8
