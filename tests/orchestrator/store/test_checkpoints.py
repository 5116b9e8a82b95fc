"""The store: what is written comes back, whole or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orchestrator.store.checkpoints import MANIFEST, ResumeState, State, Store

STATE = State(
    {"a.weight": torch.arange(6.0).reshape(2, 3)},
    {"0:ewc": {"fisher": {"a.weight": torch.ones(2)}, "count": 3, "names": ["x"], "none": None}},
    {"seconds": 1.5, "steps": [{"step": 1, "loss": 0.5}]},
)


def test_round_trip(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert not store.has("k")
    size = store.save("k", STATE, {"why": "test", "sequence": "s-1"})
    assert store.has("k")
    assert store.maker("k") == "s-1"
    assert store.is_sound("k")
    loaded = store.load("k")
    assert torch.equal(loaded.weights["a.weight"], STATE.weights["a.weight"])
    assert torch.equal(loaded.method["0:ewc"]["fisher"]["a.weight"], torch.ones(2))
    assert {k: v for k, v in loaded.method["0:ewc"].items() if k != "fisher"} == {
        "count": 3,
        "names": ["x"],
        "none": None,
    }
    assert loaded.history == STATE.history == store.history("k")
    files = [f for f in store.path("k").iterdir() if f.name != MANIFEST]
    assert size == sum(f.stat().st_size for f in files)
    assert {f.name for f in files} == {"weights.safetensors", "method.safetensors", "method.json", "history.json"}
    assert json.loads((store.path("k") / MANIFEST).read_text())["made_by"]["why"] == "test"


def test_a_resume_state_is_read_where_it_is_wanted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    optimizer_state = {"a.weight": {"step": torch.tensor(3.0), "exp_avg": torch.ones(2, 3)}}
    store.save("k", replace(STATE, resume_state=ResumeState({"a.weight": torch.zeros(2, 3)}, optimizer_state)), {})
    assert store.load("k").resume_state is None
    resume_state = store.load("k", resume_state=True).resume_state
    assert resume_state
    assert torch.equal(resume_state.weights["a.weight"], torch.zeros(2, 3))
    assert resume_state.optimizer_state.keys() == optimizer_state.keys()
    assert all(
        torch.equal(entry, resume_state.optimizer_state["a.weight"][name])
        for name, entry in optimizer_state["a.weight"].items()
    )
    (store.path("k") / "resume.safetensors").unlink()
    assert not store.is_sound("k")


def test_what_a_run_goes_on_from_lies_in_memory_as_it_did_before(tmp_path: Path) -> None:
    """A kernel rounds differently where a tensor begins elsewhere; torch's own memory begins at multiples of 64 bytes."""
    store = Store(tmp_path)
    sizes = (1, 3, 5, 7)
    memory = {f"m{n}": torch.arange(float(n)) for n in sizes}
    resume_state = ResumeState(
        {"a": torch.zeros(3), "b": torch.ones(5)}, {"a": {"step": torch.ones(1), "v": torch.ones(3)}}
    )
    store.save("k", replace(STATE, method={"0:part": memory}, resume_state=resume_state), {})
    loaded = store.load("k", resume_state=True)
    assert loaded.resume_state
    tensors = [*loaded.method["0:part"].values(), *loaded.resume_state.weights.values()]
    tensors += loaded.resume_state.optimizer_state["a"].values()
    assert [t.data_ptr() % 64 for t in tensors] == [0] * 8


def test_a_changed_or_missing_file_is_noticed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save("k", STATE, {})
    weights = store.path("k") / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert not store.is_sound("k")
    weights.unlink()
    assert not store.is_sound("k")


def test_what_was_not_finished_is_not_there(tmp_path: Path) -> None:
    class Unsaveable:
        pass

    store = Store(tmp_path)
    with pytest.raises(TypeError, match="only tensors and plain values"):
        store.save("k", State(STATE.weights, {"x": Unsaveable()}, {}), {})
    assert not store.has("k")
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_saving_the_same_state_twice_keeps_the_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save("k", STATE, {"by": 1})
    store.save("k", STATE, {"by": 2})
    assert json.loads((store.path("k") / MANIFEST).read_text())["made_by"] == {"by": 1}
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["k"]


def test_a_folder_without_its_manifest_is_set_aside(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save("k", STATE, {})
    (store.path("k") / MANIFEST).unlink()
    (tmp_path / "checkpoints" / ".k.deadbeef").mkdir()
    assert store.save("k", STATE, {}) > 0
    assert store.is_sound("k")
    names = [p.name for p in (tmp_path / "checkpoints").iterdir()]
    assert sorted(n.split("-")[0] for n in names) == ["k", "k.corrupt"]
