"""Files of lines that grow, on a disk and in an object store."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import StorageFailed
from orchestrator.storage import lines
from orchestrator.storage.lines import Segments, appended, files_of_lines, has_lines_of, opened_at
from orchestrator.storage.objects import ObjectPath
from orchestrator.storage.places import folder_at


@pytest.fixture
def folder(bucket: str) -> Path:
    return folder_at(f"{bucket}/sequences/s")


def names(folder: Path) -> list[str]:
    return [file.name for file, _ in files_of_lines(folder, first="train")]


def content(folder: Path) -> bytes:
    """All lines, as a reader gets them."""
    whole = b""
    for file, size in files_of_lines(folder, first="train"):
        with opened_at(file, 0) as stream:
            read = stream.read()
        assert len(read) == size
        whole += read
    return whole


def test_objects_grow_and_are_followed_by_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "SEGMENT_BYTES", 6)
    writer = Segments(folder, "train")
    for line in (b"one\n", b"two\n", b"three\n"):
        writer.append(line, at_once=True)
    assert names(folder) == ["train.000001.jsonl", "train.000002.jsonl"]
    (first, size), _ = files_of_lines(folder, first="train")
    assert size == 8
    with opened_at(first, 4) as stream:
        assert stream.read() == b"two\n"
    # another process, and another writer
    Segments(folder, "train").append(b"four\n", at_once=True)
    Segments(folder, "a-writer").append(b"five\n", at_once=True)
    assert names(folder) == [f"train.00000{number}.jsonl" for number in (1, 2, 3)] + ["a-writer.000001.jsonl"]
    assert content(folder) == b"one\ntwo\nthree\nfour\nfive\n"
    assert has_lines_of(folder, "train") and not has_lines_of(folder, "search")


def test_lines_that_may_wait_go_with_the_next_that_may_not(folder: Path) -> None:
    writer = Segments(folder, "train")
    writer.append(b"first\n", at_once=True)
    writer.append(b"step 1\n", at_once=False)
    writer.append(b"step 2\n", at_once=False)
    assert content(folder) == b"first\n"
    writer.append(b"saved\n", at_once=True)
    assert content(folder) == b"first\nstep 1\nstep 2\nsaved\n"


def test_lines_wait_for_seconds_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Segments(folder, "train")
    writer.append(b"first\n", at_once=True)
    monkeypatch.setattr(lines, "SECONDS_TOGETHER", 0.0)
    writer.append(b"step 1\n", at_once=False)
    assert content(folder) == b"first\nstep 1\n"


def test_two_processes_that_think_they_are_alone_lose_no_line(folder: Path) -> None:
    one, two = Segments(folder, "train"), Segments(folder, "train")
    one.append(b"one\n", at_once=True)
    # it looked for the last number before the other one wrote
    two._last_number = lambda: 0  # type: ignore[method-assign]
    two.append(b"two\n", at_once=True)
    one.append(b"three\n", at_once=True)
    assert content(folder) == b"one\nthree\ntwo\n"


def test_no_line_is_lost_where_the_store_fails_for_a_while(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(path: ObjectPath, *rest: object) -> None:
        raise StorageFailed("away")

    monkeypatch.setattr(lines, "SEGMENT_BYTES", 3)
    writer = Segments(folder, "train")
    for line in (b"one\n", b"2\n", b"three\n"):
        with monkeypatch.context() as patch:
            patch.setattr(ObjectPath, "put_if", away)
            patch.setattr(ObjectPath, "write_bytes", away)
            with pytest.raises(StorageFailed):
                writer.append(line, at_once=True)
        writer.append(b"-\n", at_once=True)
    assert content(folder) == b"one\n-\n2\n-\nthree\n-\n"


def test_a_text_file_is_appended_to(folder: Path, tmp_path: Path) -> None:
    for place in (folder, tmp_path / "logs"):
        with appended(place / "worker-0.log") as stream:
            stream.write("first\n")
        with pytest.raises(ZeroDivisionError), appended(place / "worker-0.log") as stream:
            stream.write("second, with its end\n")
            raise ZeroDivisionError
        assert (place / "worker-0.log").read_text() == "first\nsecond, with its end\n"


def test_files_on_a_disk_are_one_a_writer(tmp_path: Path) -> None:
    (tmp_path / "evaluate.jsonl").write_bytes(b"one\n")
    (tmp_path / "train.jsonl").write_bytes(b"two\n")
    assert files_of_lines(tmp_path, first="train") == [(tmp_path / "train.jsonl", 4), (tmp_path / "evaluate.jsonl", 4)]
    assert has_lines_of(tmp_path, "train") and not has_lines_of(tmp_path, "search")
    with opened_at(tmp_path / "train.jsonl", 2) as stream:
        assert stream.read() == b"o\n"
