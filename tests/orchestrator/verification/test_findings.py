"""What is damaged is kept beside its place, under a name of its own."""

from __future__ import annotations

from pathlib import Path

from orchestrator.verification.findings import put_aside


def test_what_is_put_aside_twice_is_there_twice(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    for content in ("one", "two"):
        file.write_text(content)
        put_aside(file)
    assert not file.exists() and list(tmp_path.glob("*.jsonl")) == []
    kept = sorted(path.read_text() for path in tmp_path.glob("train.jsonl.damaged-*"))
    assert kept == ["one", "two"]
