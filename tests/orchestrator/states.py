"""States and scores written by hand, for tests of what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from orchestrator.planning.experiment import Experiment
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import State, Store
from tests.conftest import small_config

HISTORY = {"seconds": 1.0, "steps": [], "usage": {"steps": 0}, "diagnostics": {}}


def planned(out: Path, name: str = "small", methods: Any = ("ft", "ft+migu"), **changes: Any) -> list[SequencePlan]:
    """The sequences of an experiment of three tasks, whose folder is written."""
    config = small_config(out, name=name, methods=list(methods), stream={"first": 3}, **changes)
    experiment = Experiment(config, tuple(plan(config)))
    experiment.save()
    return list(experiment.sequences)


def make_states(sequence: SequencePlan, *tasks_seen: int, scored: bool = True) -> Store:
    """Write states of a sequence that are not there yet, and all of their scores."""
    store = Store(Path(sequence.out))
    for count in tasks_seen:
        if count > 0 and not store.has(sequence.keys[count]):
            state = State({"w": torch.full((100,), float(count))}, {}, HISTORY)
            store.save(sequence.keys[count], state, {"sequence": sequence.id})
        if scored:
            make_scores(sequence, count)
    return store


def make_scores(sequence: SequencePlan, tasks_seen: int) -> None:
    """Write all scores of a state."""
    for key in sequence.score_keys[tasks_seen]:
        score = {"score": 50.0, "score_options": None, "correct": 1, "n": 2, "seconds": 0.1}
        Store(Path(sequence.out)).save_score(key, score)


def states_of(sequence: SequencePlan) -> list[int]:
    """Which states of a sequence are there, each named by the tasks that it has seen."""
    store = Store(Path(sequence.out))
    return [count for count in range(1, len(sequence.keys)) if store.has(sequence.keys[count])]
