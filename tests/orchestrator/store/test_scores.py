"""Scores: they come back as they were, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.store.scores import load_score, save_score, score_file

RECORD = {"score": 50.0, "score_options": None, "correct": 5, "n": 10, "seconds": 0.1}


def test_a_score_comes_back(tmp_path: Path) -> None:
    assert load_score(tmp_path, "k") is None
    save_score(tmp_path, "k", RECORD)
    assert load_score(tmp_path, "k") == RECORD
    assert [file.name for file in (tmp_path / "scores").iterdir()] == ["k.json"]


@pytest.mark.parametrize("damage", [b"", b"{", b"\0" * 60, b"\xff", b'{"score": 60.0, "n": 10}'])
def test_a_damaged_file_is_no_score(tmp_path: Path, damage: bytes) -> None:
    save_score(tmp_path, "k", RECORD)
    score_file(tmp_path, "k").write_bytes(damage)
    assert load_score(tmp_path, "k") is None
    save_score(tmp_path, "k", RECORD)
    assert load_score(tmp_path, "k") == RECORD


def test_no_flipped_bit_changes_a_score(tmp_path: Path) -> None:
    save_score(tmp_path, "k", RECORD)
    file = score_file(tmp_path, "k")
    content = file.read_bytes()
    for position in range(len(content) - 1):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        file.write_bytes(bytes(changed))
        assert load_score(tmp_path, "k") is None
