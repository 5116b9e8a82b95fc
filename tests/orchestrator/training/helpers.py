"""What tests of training share: a stream of one's own, what was trained, and stored states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import State, Store
from orchestrator.store.events import CheckpointSaved
from orchestrator.store.records.event import Event
from orchestrator.training.sequence import run_sequence

ANNEALED = {"schedule": "infinite", "warmup": 0.1}


EWC = {"name": "held", "tuning": "full", "plugins": [{"name": "ewc", "strength": 1e3}]}


def trained(sequence: SequencePlan) -> list[str]:
    """Run a sequence; the tasks that were really trained, not found."""
    done: list[str] = []

    def report(event: Event) -> None:
        if isinstance(event, CheckpointSaved) and not event.reused:
            done.append(event.task)

    run_sequence(sequence, report)
    return done


def folder_with(tmp_path: Path, names: list[str]) -> dict[str, Any]:
    """A stream of small tasks with labels of their own."""
    for i, name in enumerate(("first", "second", "third")):
        path = tmp_path / "data" / "TC" / name
        if not path.exists():
            path.mkdir(parents=True)
            labels = [f"{name}-a", f"{name}-b"]
            rows = [{"label": labels[r % 2], "sentence": f"{name} text {r} {i}"} for r in range(26)]
            for split, content in (("train", rows[:20]), ("test", rows[20:]), ("labels", labels)):
                (path / f"{split}.json").write_text(json.dumps(content))
    return {"name": "own", "folder": str(tmp_path / "data"), "tasks": names}


def stored(sequence: SequencePlan, tasks_seen: int) -> State:
    """The state after so many tasks, with its resume state."""
    return Store(Path(sequence.out)).load(sequence.keys[tasks_seen], resume_state=True)


def equal(a: Any, b: Any) -> bool:
    """Of nested tensors by name."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    return a.keys() == b.keys() and all(equal(value, b[name]) for name, value in a.items())
