"""Locks: one holder at a time."""

from __future__ import annotations

from pathlib import Path

from orchestrator.store.locks import exclusive_lock


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    with exclusive_lock(tmp_path / "locks", "k", 0) as first:
        assert first
        with (
            exclusive_lock(tmp_path / "locks", "k", 0) as second,
            exclusive_lock(tmp_path / "locks", "other", 0) as other,
        ):
            assert not second
            assert other
    with exclusive_lock(tmp_path / "locks", "k", 0) as again:
        assert again
