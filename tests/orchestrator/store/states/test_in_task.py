"""Of the states inside a task the newest one stays, and none once it is over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from orchestrator.store.checkpoints import State, Store
from orchestrator.store.states.in_task import InTaskStates
from orchestrator.store.states.state_files import PackedState, pack_state


def packed(number: int) -> PackedState:
    return pack_state(State({"w": torch.full((3,), float(number))}, {}, {"steps_done": number}))


def names(root: Path) -> list[str]:
    return sorted(folder.name for folder in (root / "in_task" / "checkpoints").iterdir())


def test_the_newest_stays(tmp_path: Path) -> None:
    states = InTaskStates(tmp_path, "abc")
    assert states.newest() is None
    # ten after nine, though "10" sorts before "9"
    for step in (9, 10):
        assert states.write(step, packed(step), {}) > 0
        assert len(names(tmp_path)) == 1
    newest = states.newest()
    assert newest is not None and newest.weights["w"].tolist() == [10.0] * 3
    assert Store(tmp_path).all_keys() == [], "nobody takes it for a state after a task"
    InTaskStates(tmp_path, "abcd").write(1, packed(1), {})
    states.remove()
    assert states.newest() is None
    assert [name.partition("-")[0] for name in names(tmp_path)] == ["abcd"]


@pytest.mark.parametrize("file", ["weights.safetensors", "method.safetensors", "manifest.json"])
def test_a_damaged_one_gives_way_to_the_one_before(file: str, tmp_path: Path) -> None:
    states = InTaskStates(tmp_path, "abc")
    for step in (3, 4):
        # as a process leaves them that dies before it removes the older one
        Store(tmp_path / "in_task").write(f"abc-{step:010d}", packed(step), {})
    (tmp_path / "in_task" / "checkpoints" / "abc-0000000004" / file).write_bytes(b"{}")
    newest = states.newest()
    assert newest is not None and newest.history["steps_done"] == 3
    assert names(tmp_path) == ["abc-0000000003"]
