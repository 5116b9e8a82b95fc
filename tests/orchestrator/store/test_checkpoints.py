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


def test_a_resume_state_is_loaded_where_it_is_wanted_and_counts_as_a_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save("k", replace(STATE, resume_state=ResumeState({"a.weight": torch.zeros(2, 3)}, {})), {})
    assert store.load("k").resume_state is None
    assert store.load("k", resume_state=True).resume_state
    (store.path("k") / "resume.safetensors").unlink()
    assert not store.is_sound("k")


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
    assert list(tmp_path.iterdir()) == [], "it is refused before anything is written"
    with pytest.raises(TypeError, match=r"tensor 'b' has elements of type torch.complex128"):
        store.save("k", State({"a": torch.ones(2), "b": torch.zeros(1, dtype=torch.complex128)}, {}, {}), {})
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


def test_of_a_pruned_state_its_history_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    size = store.save("k", STATE, {"sequence": "s-1", "versions": {"torch": "2"}})
    kept = (store.path("k") / "history.json").stat().st_size
    assert store.prunable_bytes("k") == size - kept
    assert store.prune("k") == size - kept
    assert sorted(file.name for file in store.path("k").iterdir()) == ["history.json", MANIFEST]
    assert not store.has("k") and not store.is_sound("k")
    assert store.is_pruned("k") and store.has_history("k")
    assert store.history("k") == STATE.history
    assert (store.maker("k"), store.versions("k"), store.size("k")) == ("s-1", {"torch": "2"}, size)
    assert store.prune("k") == size - kept, "once more changes nothing"
    (store.path("k") / "history.json").write_text("{}")
    assert not store.is_pruned("k") and not store.has_history("k")


def test_a_pruned_state_is_made_again_in_its_place(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save("k", STATE, {"by": 1})
    store.prune("k")
    store.save("k", STATE, {"by": 2})
    assert store.is_sound("k") and store.has("k") and not store.is_pruned("k")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["k"], "nothing was corrupt"


def test_a_process_that_dies_while_it_prunes_leaves_no_state_without_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.save("k", STATE, {})

    def die(file: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)
        with pytest.raises(KeyboardInterrupt):
            store.prune("k")
    assert store.is_pruned("k") and not store.has("k")
    store.prune("k")
    assert sorted(file.name for file in store.path("k").iterdir()) == ["history.json", MANIFEST]
