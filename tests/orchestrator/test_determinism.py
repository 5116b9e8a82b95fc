"""`training.deterministic`: what is asked of torch, what becomes of an operation that cannot, and which keys change."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orchestrator.determinism import deterministic
from orchestrator.errors import SequenceFailed
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.store.view import read_view
from orchestrator.training.scoring import score_state
from orchestrator.training.sequence import run_sequence

# `put_` is one of the few that has no such form on a CPU either
PLUGIN = """
import torch

from methods import Method

seen = []


class Asking(Method):
    def before_task(self, model, task_id, batches):
        seen.append(torch.are_deterministic_algorithms_enabled())


class Putting(Method):
    def before_task(self, model, task_id, batches):
        torch.zeros(3).put_(torch.tensor([0]), torch.tensor([1.0]))
"""


@pytest.fixture(autouse=True)
def _own_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "asking_part.py").write_text(PLUGIN)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    # `setdefault` writes it: this puts back that it was not there
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")


def test_torch_is_as_it_was_afterwards() -> None:
    with deterministic(False):
        assert not torch.are_deterministic_algorithms_enabled()
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with pytest.raises(KeyError), deterministic(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        raise KeyError("another error passes")
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_sequence_trains_and_is_scored_so_with_equal_weights(
    sequence_of: Callable[..., SequencePlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    method = {"name": "asking", "tuning": "full", "plugins": ["asking_part.Asking"]}
    shape = {"methods": [method], "stream": {"first": 1}, "model": "tiny-bert"}
    plain = sequence_of(**shape)
    asked = sequence_of(**shape, training={"deterministic": True})
    # a state that was trained without it is not taken for one that can be made again on a GPU
    assert plain.keys[0] == asked.keys[0] and plain.keys[1] != asked.keys[1]
    assert sequence_of(**shape, training={"deterministic": False}).keys == plain.keys
    for sequence in (plain, asked):
        run_sequence(sequence, evaluate=False)
    assert sys.modules["asking_part"].seen == [False, True]
    store = Store(Path(plain.out))
    weights, others = store.load(plain.keys[1]).weights, store.load(asked.keys[1]).weights
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    scored = []
    monkeypatch.setattr(
        "orchestrator.training.scoring.compute_column",
        lambda *arguments: scored.append(torch.are_deterministic_algorithms_enabled()),
    )
    score_state(plain, 1)
    score_state(asked, 1)
    assert scored == [False, True]


def test_an_operation_that_has_no_such_form_is_one_line_that_names_the_setting(
    sequence_of: Callable[..., SequencePlan],
) -> None:
    method = {"name": "putting", "tuning": "full", "plugins": ["asking_part.Putting"]}
    sequence = sequence_of(methods=[method], training={"deterministic": True}, stream={"first": 1}, model="tiny-bert")
    with pytest.raises(SequenceFailed):
        run_sequence(sequence, evaluate=False)
    failed = read_view(sequence.out, sequence.id).failed
    assert failed is not None and not failed.transient
    assert failed.reason.startswith("training.deterministic: put_ has no deterministic form on this device")
