"""`orchestrator prune`: the table, the JSON object, and the command to give next."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.store.scores import score_file
from tests.orchestrator.search.searches import steady, write_scores
from tests.orchestrator.states import make_states, planned, states_of

Call = Callable[..., tuple[int, str, str]]


def test_it_says_what_would_go_and_how_to_have_it_go(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sequence,) = planned(tmp_path / "runs", methods=["ft"])
    make_states(sequence, 0, 1, 2, 3)
    monkeypatch.chdir(tmp_path)
    code, stdout, _ = call("prune", "small", "--dry-run", "--keep", "none")
    assert code == 0
    assert "small: keep none" in stdout
    assert stdout.splitlines()[-1] == "remove them: orchestrator prune small --keep none"
    assert states_of(sequence) == [1, 2, 3]
    code, stdout, stderr = call("prune", "small", "--out", tmp_path / "runs", "--json")
    assert code == 0
    assert json.loads(stdout)["states"] == 2, "stdout is the object alone"
    assert stderr.splitlines()[-1] == "the table again: orchestrator report small"
    assert states_of(sequence) == [3]


def test_to_keep_all_is_nothing_to_prune(call: Call, tmp_path: Path) -> None:
    code, _, stderr = call("prune", "small", "--keep", "all", "--out", tmp_path)
    assert code == 2
    assert "'last', 'none'" in stderr


def test_an_unknown_experiment_is_one_line(call: Call, tmp_path: Path) -> None:
    code, stdout, stderr = call("prune", "nothing", "--out", tmp_path)
    assert (code, stdout) == (2, "")
    assert "no experiment 'nothing'" in stderr
    assert stderr.count("\n") == 1


def test_verify_says_what_is_damaged_and_mends_it(call: Call, tmp_path: Path) -> None:
    (sequence,) = planned(tmp_path, methods=["ft"])
    make_states(sequence, 0, 1, 2)
    write_scores(sequence, steady(50.0)[:3])
    assert call("verify", "small", "--out", tmp_path)[0] == 0
    score_file(tmp_path, sequence.score_keys[1][0]).write_bytes(b"")
    code, stdout, stderr = call("verify", "small", "--out", tmp_path, "--json")
    assert code == 1
    (row,) = json.loads(stdout)["damaged"]
    assert row["file"] == f"scores/{sequence.score_keys[1][0]}.json"
    assert row["remedy"] == "computed again by `orchestrator evaluate`"
    assert stderr.splitlines()[-1] == f"1 found; next: orchestrator verify small --out {tmp_path} --repair"
    assert call("verify", "small", "--repair", "--out", tmp_path)[0] == 0
    assert call("verify", "small", "--out", tmp_path)[0] == 0
    assert call("verify", "nothing", "--out", tmp_path)[0] == 2


def test_what_cannot_be_synced_is_one_line(call: Call, tmp_path: Path) -> None:
    """What is there is tested with `orchestrator.sync`."""
    code, stdout, stderr = call("sync", "nothing", "--out", tmp_path)
    assert (code, stdout) == (2, "")
    assert "no experiment 'nothing'" in stderr
    assert stderr.count("\n") == 1
    assert not (tmp_path / "mlflow.db").exists()
