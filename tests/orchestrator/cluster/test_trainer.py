"""What is said of a group that Ray Train gave up."""

from __future__ import annotations

from pathlib import Path

from orchestrator.cluster.trainer import gave_up


def test_the_cause_is_told_in_one_line_and_the_whole_is_in_the_log(tmp_path: Path) -> None:
    line = gave_up("small-0", RuntimeError("Ray's stack\n  of many lines\nOSError: no space left\n"), str(tmp_path))
    log = tmp_path / "logs" / "driver.log"
    assert line == f"the workers of small-0 gave up: OSError: no space left; log: {log}"
    assert "the workers of small-0" in log.read_text()
    assert "of many lines" in log.read_text()
    assert "gave up: KeyError; log" in gave_up("small-0", KeyError(), str(tmp_path))
