"""The store: what is written comes back, whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from orchestrator.store.checkpoints import MANIFEST, ResumeState, State, Store
from orchestrator.store.integrity import file_sha256
from orchestrator.store.states.state_files import pack_state

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


def test_every_flipped_bit_of_a_manifest_is_noticed(tmp_path: Path) -> None:
    """Also where it is in what nothing else is compared with, such as who made the state."""
    store = Store(tmp_path)
    store.save("k", STATE, {"sequence": "s-1"})
    manifest = store.path("k") / MANIFEST
    sound = manifest.read_bytes()
    for position in range(len(sound) - 1):
        for bit in range(8):
            changed = bytearray(sound)
            changed[position] ^= 1 << bit
            manifest.write_bytes(changed)
            assert not store.has("k"), (position, bit)
    for damage in (b"", b"null", b"[]", b"\0" * 40, b"\xff\xfe", sound[:50], b"{}\n", b'{\n "files": 3}'):
        manifest.write_bytes(damage)
        assert not store.has("k") and not store.is_sound("k") and not store.is_pruned("k"), damage


def test_a_manifest_of_before_they_were_sealed_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save("k", STATE, {"sequence": "s-1"})
    values = json.loads((store.path("k") / MANIFEST).read_text())
    del values["crc"]
    (store.path("k") / MANIFEST).write_text(json.dumps(values, indent=1))
    assert store.has("k") and store.is_sound("k") and store.maker("k") == "s-1"


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


def chain(store: Store, count: int) -> list[dict[str, torch.Tensor]]:
    """Write states k0, k1, … of which each differs a little from the one before; gives their weights."""
    rng = torch.Generator().manual_seed(0)
    weights = [{"w": torch.randn(50, 40, generator=rng), "n": torch.arange(3)}]
    for number in range(1, count):
        before = weights[-1]["w"]
        weights.append({"w": before * (1 + 1e-6 * torch.randn(50, 40, generator=rng)), "n": torch.arange(3) + number})
    for number, values in enumerate(weights):
        packed = pack_state(State(values, {}, {"seconds": 1.0}))
        store.write(f"k{number}", packed, {}, base=f"k{number - 1}" if number else None)
    return weights


def loads(store: Store, key: str, weights: dict[str, torch.Tensor]) -> bool:
    """Whether a checkpoint is sound and has these weights, bit for bit."""
    loaded = store.load(key).weights
    return store.has(key) and store.is_sound(key) and all(torch.equal(loaded[name], w) for name, w in weights.items())


def test_a_difference_from_the_state_before_is_smaller_and_reads_the_same(tmp_path: Path) -> None:
    store = Store(tmp_path)
    weights = chain(store, 10)
    whole = Store(tmp_path / "whole")
    whole_size = whole.save("k1", State(weights[1], {}, {"seconds": 1.0}), {})
    assert store.size("k1") < 0.8 * whole_size
    assert not (store.path("k1") / "weights.safetensors").exists()
    assert all(loads(store, f"k{number}", values) for number, values in enumerate(weights))
    # k0 and k8 are whole: k8 would have eight differences behind it
    assert [store.links(f"k{number}") for number in range(10)] == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]
    assert store.growth_of("k1") == whole_size - store.size("k1")
    manifest = json.loads((store.path("k1") / MANIFEST).read_text())
    library = _saved(tmp_path, weights[1])
    assert manifest["whole"] == {"sha256": file_sha256(library), "bytes": library.stat().st_size}


def test_a_state_is_whole_where_there_is_nothing_smaller_to_be_had(tmp_path: Path) -> None:
    store = Store(tmp_path)
    noise = [torch.randint(0, 256, (4000,), dtype=torch.uint8).view(torch.int32) for _ in range(2)]
    for number in (0, 1):
        packed = pack_state(State({"w": noise[number]}, {}, {}))
        store.write(f"k{number}", packed, {}, base="k0" if number else "not there")
    assert store.base_of("k1") is None and loads(store, "k1", {"w": noise[1]})
    # a base that is not what it was would give other weights to whoever reads it later
    (store.path("k0") / "weights.safetensors").write_bytes(b"broken")
    store.write("k2", pack_state(State({"w": noise[1]}, {}, {})), {}, base="k0")
    assert store.base_of("k2") is None and store.is_sound("k2")


def test_a_difference_is_no_state_without_what_it_differs_from(tmp_path: Path) -> None:
    store = Store(tmp_path)
    weights = chain(store, 3)
    content = (store.path("k0") / "weights.safetensors").read_bytes()
    (store.path("k0") / "weights.safetensors").write_bytes(b"broken")
    assert store.has("k2") and not store.is_sound("k2")
    (store.path("k0") / "weights.safetensors").write_bytes(content)
    assert store.is_sound("k2")
    # made again by other workers, its last bits are others
    store.set_aside("k0")
    other = {"w": weights[0]["w"] + 1e-6, "n": weights[0]["n"]}
    assert not store.has("k1") and not store.has("k2")
    store.save("k0", State(other, {}, {}), {})
    assert store.has("k0") and not store.has("k1") and not store.is_sound("k2")
    store.set_aside("k0")
    store.save("k0", State(weights[0], {}, {}), {})
    assert loads(store, "k2", weights[2])
    store.prune("k0")
    assert not store.has("k1") and store.has_history("k1")
    store.prune("k1")
    assert store.base_of("k1") is None, "a history differs from nothing"


def test_a_difference_is_made_whole_and_needs_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    weights = chain(store, 3)
    size, growth = store.size("k2"), store.growth_of("k2")

    def die(file: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)
        with pytest.raises(KeyboardInterrupt):
            store.make_whole("k2")
    assert loads(store, "k2", weights[2]), "whenever the process dies"
    assert store.base_of("k2") is None
    store.make_whole("k1")
    assert store.size("k2") == size + growth
    for key in ("k0", "k1"):
        store.prune(key)
    assert loads(store, "k2", weights[2])
    assert file_sha256(store.path("k2") / "weights.safetensors") == file_sha256(_saved(tmp_path, weights[2]))
    assert store.all_keys() == ["k2"]


def _saved(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    save_file(weights, folder / "library")
    return folder / "library"


def test_weights_that_came_out_otherwise_are_not_made_the_state(tmp_path: Path) -> None:
    store = Store(tmp_path)
    chain(store, 2)
    other = torch.zeros(50, 40)
    save_file({"w": other, "n": torch.arange(3)}, store.path("k0") / "weights.safetensors")
    with pytest.raises(ValueError, match="are not what they were when it was written"):
        store.make_whole("k1")
    assert store.base_of("k1") == "k0"


def test_every_file_is_on_the_disk_before_its_folder_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = set()
    rename, fsync = Path.rename, os.fsync

    def note(descriptor: int) -> None:
        synced.add(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def check(folder: Path, target: Path) -> Path:
        assert synced == {file.name for file in folder.iterdir()}
        assert MANIFEST in synced and len(synced) == 5
        return rename(folder, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "rename", check)
    Store(tmp_path).save("k", STATE, {})
    assert Store(tmp_path).is_sound("k")
