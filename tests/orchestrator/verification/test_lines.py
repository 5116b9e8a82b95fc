"""Lines that are not what was written: counted as a reader counts them, and dropped without the others."""

from __future__ import annotations

from pathlib import Path

from orchestrator.store.integrity import seal
from orchestrator.store.journal import Journal, Tail
from orchestrator.verification.findings import Remedy
from orchestrator.verification.lines import damaged_lines, drop_damaged_lines, is_whole_event, is_whole_line
from tests.orchestrator.store.examples import step


def test_damaged_lines_are_named_and_dropped(tmp_path: Path) -> None:
    """Also a last one that has no end, for which a reader waits for ever."""
    file = tmp_path / "train.jsonl"
    Journal(tmp_path).append_all([step(0, 1), step(0, 2)])
    sound = file.read_bytes()
    file.write_bytes(sound.replace(b'"step": 1', b'"step": 7') + b"\n" + seal({"event": "no"}) + b"\n" + b"\0" * 9)
    found = list(damaged_lines(file, is_whole_event, Remedy.FROM_STORE))
    assert [finding.what for finding in found] == [f"line {number} is not what was written" for number in (1, 4, 5)]
    assert {(finding.file, finding.remedy) for finding in found} == {(file, Remedy.FROM_STORE)}
    assert [line.number for line in _read(tmp_path).damaged] == [1, 3, 4], "an empty line is passed over"
    drop_damaged_lines(file, is_whole_event)
    assert file.read_bytes() == sound.splitlines(keepends=True)[1]
    assert list(damaged_lines(file, is_whole_event, Remedy.FROM_STORE)) == []


def _read(folder: Path) -> Tail:
    tail = Tail(folder)
    for _ in tail.new_events():
        pass
    return tail


def test_a_line_of_another_kind_is_whole_where_it_is_as_it_was_sealed() -> None:
    line = seal({"by": "plan"})
    assert is_whole_line(line) and not is_whole_event(line)
    assert not is_whole_line(line.replace(b"plan", b"flan"))
