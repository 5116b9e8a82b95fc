"""What `verify` says: each damage once, and the command that comes next."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.store.scores import score_file
from orchestrator.verification.verify import print_verification, verify
from tests.orchestrator.search.searches import steady, write_scores
from tests.orchestrator.states import make_states, planned


def result_of(out: Path, repair: bool = False) -> dict[str, Any]:
    """What is found of the experiment in a folder."""
    return verify("small", str(out), Console(file=io.StringIO()), repair)


def test_what_is_sound_is_said_in_one_line(tmp_path: Path) -> None:
    for sequence in planned(tmp_path):
        make_states(sequence, 0, 1)
        write_scores(sequence, steady(50.0)[:2])
    result = result_of(tmp_path)
    assert (result["damaged"], result["next"], result["lost"], result["repaired"]) == ([], None, 0, False)
    assert printed(result) == "small: 2 sequences, every file is what was written\n"


def test_what_two_sequences_share_is_said_once(tmp_path: Path) -> None:
    """Both methods have one first state: the ratio of the second counts from its second task on."""
    sequences = planned(tmp_path)
    shared = sequences[0].keys[1]
    assert shared == sequences[1].keys[1]
    for sequence in sequences:
        store = make_states(sequence, 0, 1, 2)
        write_scores(sequence, steady(50.0)[:3])
    (store.path(shared) / "weights.safetensors").write_bytes(b"")
    score_file(tmp_path, sequences[0].score_keys[1][2]).write_bytes(b"null\n")
    result = result_of(tmp_path)
    assert sorted((row["file"].split("/")[0], row["what"]) for row in result["damaged"]) == [
        ("checkpoints", "its files are not what was written"),
        ("scores", "it is not what was written"),
    ]
    assert result["next"] == f"orchestrator verify small --out {tmp_path} --repair"
    assert "trained again by the same `orchestrator run`" in printed(result)


def test_the_next_command_is_that_which_computes_what_is_missing(tmp_path: Path) -> None:
    sequence = planned(tmp_path, methods=["ft"])[0]
    store = make_states(sequence, 0, 1)
    write_scores(sequence, steady(50.0)[:1])
    score_file(tmp_path, sequence.score_keys[0][0]).write_bytes(b"")
    result = result_of(tmp_path, repair=True)
    assert result["repaired"] and result["next"] == f"orchestrator evaluate small --out {tmp_path}"
    assert result_of(tmp_path)["damaged"] == []
    (store.path(sequence.keys[1]) / "method.json").write_bytes(b"")
    assert result_of(tmp_path, repair=True)["next"] == "the `orchestrator run` command that made it, once more"
    assert result_of(tmp_path)["damaged"] == []


def printed(result: dict[str, Any]) -> str:
    stream = io.StringIO()
    print_verification(result, Console(file=stream, width=200))
    return stream.getvalue()
