"""The journal: appended facts, read back once each; a damaged line is named, counted and left out."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.store.events import SequenceFailed, Step
from orchestrator.store.integrity import seal
from orchestrator.store.journal import Journal, ResumableTail, Tail, ThreadedJournal
from orchestrator.store.records.event import Event
from tests.orchestrator.store.examples import step


def numbers(tail: Tail) -> list[int]:
    """The steps that are new to a reader."""
    found: list[int] = []
    for event in tail.new_events():
        assert isinstance(event, Step)
        found.append(event.step)
    return found


def test_an_event_comes_back_as_it_was(tmp_path: Path) -> None:
    event: Event = step(1, 2, loss=0.1)
    Journal(tmp_path).append(event)
    assert list(Tail(tmp_path).new_events()) == [event]


def test_a_tail_gives_each_event_once_and_waits_for_whole_lines(tmp_path: Path) -> None:
    journal, tail = Journal(tmp_path), Tail(tmp_path)
    journal.append(step(0, 1))
    assert numbers(tail) == [1]
    line = seal(step(0, 2).to_json())
    with (tmp_path / "train.jsonl").open("ab") as stream:
        stream.write(line[:30])
    assert numbers(tail) == []
    with (tmp_path / "train.jsonl").open("ab") as stream:
        stream.write(line[30:] + b"\n")
    assert numbers(tail) == [2]
    assert tail.damaged == []


def test_a_line_torn_by_a_crash_takes_no_other_with_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(step(0, 1))
    with (tmp_path / "train.jsonl").open("a") as stream:
        stream.write('{"event": "step", "step": 99')
    journal.append(step(0, 2))
    tail = Tail(tmp_path)
    assert numbers(tail) == [1, 2]
    assert [str(line) for line in tail.damaged] == [f"{tmp_path}/train.jsonl:2: no checksum at its end"]


def test_two_writers_and_one_reader(tmp_path: Path) -> None:
    """The state comes before its score, whatever the files are called and whenever they were written."""
    Journal(tmp_path, "evaluate").append(step(0, 2))
    Journal(tmp_path, "train").append(step(0, 1))
    assert numbers(Tail(tmp_path)) == [1, 2]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"event": "nonsense", "n": 1}, "unknown event 'nonsense'"),
        ({"n": 1}, "unknown event None"),
        ({k: v for k, v in step(0, 1).to_json().items() if k != "loss"}, "event 'step': loss: Field required"),
        ({**step(0, 1).to_json(), "more": 1}, "event 'step': more: Extra inputs are not permitted"),
    ],
)
def test_an_event_that_is_none_is_loud(tmp_path: Path, values: dict[str, object], reason: str) -> None:
    (tmp_path / "train.jsonl").write_bytes(seal(values) + b"\n")
    tail = Tail(tmp_path)
    assert list(tail.new_events()) == []
    assert [(line.number, line.reason) for line in tail.damaged] == [(1, reason)]


@pytest.mark.parametrize("damage", [b"\0" * 40, b"\xff\xfe{", b"{}", b"[1]", b""])
def test_bytes_that_are_no_event_are_left_out(tmp_path: Path, damage: bytes) -> None:
    journal = Journal(tmp_path)
    journal.append(step(0, 1))
    with (tmp_path / "train.jsonl").open("ab") as stream:
        stream.write(damage + b"\n")
    journal.append(step(0, 2))
    tail = Tail(tmp_path)
    assert numbers(tail) == [1, 2]
    assert [line.number for line in tail.damaged] == [2]


def test_events_that_are_written_together_are_lines_of_their_own(tmp_path: Path) -> None:
    """As if each had been written alone; a line that a crash tore takes none of them."""
    with (tmp_path / "train.jsonl").open("a") as stream:
        stream.write('{"event": "step", "step": 99')
    Journal(tmp_path).append_all([step(0, 1), step(0, 2)])
    assert numbers(Tail(tmp_path)) == [1, 2]


def test_a_tail_has_news_while_bytes_are_unread(tmp_path: Path) -> None:
    journal, tail = Journal(tmp_path), Tail(tmp_path)
    assert not tail.has_news()
    for writer in ("train", "evaluate"):
        Journal(tmp_path, writer).append(step(0, 1))
        assert tail.has_news()
        assert numbers(tail) == [1]
        assert not tail.has_news()
    journal.append(step(0, 2))
    assert tail.has_news()


def test_another_reader_goes_on_where_one_stopped(tmp_path: Path) -> None:
    """The hash is that of the bytes that were read, in whichever portions."""
    tail = ResumableTail(tmp_path)
    for number in (1, 2):
        Journal(tmp_path).append(step(0, number))
        assert numbers(tail) == [number]
    Journal(tmp_path, "evaluate").append(step(0, 3))
    content = (tmp_path / "train.jsonl").read_bytes()
    assert tail.digests() == {"train.jsonl": (len(content), hashlib.sha256(content).hexdigest())}
    later = ResumableTail(tmp_path)
    assert later.go_on_from(tail.digests())
    assert [event.step for event in later.old_events() if isinstance(event, Step)] == [1, 2]
    assert numbers(later) == [3]
    Journal(tmp_path).append(step(0, 4))
    assert numbers(later) == [4]
    again = ResumableTail(tmp_path)
    assert again.go_on_from(later.digests())
    assert numbers(again) == []


def test_a_reader_does_not_go_on_in_a_file_that_is_not_what_was_read(tmp_path: Path) -> None:
    tail = ResumableTail(tmp_path)
    Journal(tmp_path).append_all([step(0, 1), step(0, 2)])
    assert numbers(tail) == [1, 2]
    path = tmp_path / "train.jsonl"
    content = path.read_bytes()
    for changed in (content[:-10], content.replace(b'"step": 2', b'"step": 3'), content[1:] + b"\n"):
        path.write_bytes(changed)
        assert not ResumableTail(tmp_path).go_on_from(tail.digests())
    path.unlink()
    other = ResumableTail(tmp_path)
    assert not other.go_on_from(tail.digests())
    assert other.digests() == {}


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A storage on which every writing waits until the event is set; then it writes."""
    go_on = threading.Event()
    write = Journal.append_all

    def wait(journal: Journal, events: Sequence[Event]) -> None:
        assert go_on.wait(60)
        write(journal, events)

    monkeypatch.setattr(Journal, "append_all", wait)
    return go_on


def test_steps_wait_for_no_disk_and_other_events_for_the_steps(tmp_path: Path, slow_disk: threading.Event) -> None:
    journal, tail = ThreadedJournal(tmp_path), Tail(tmp_path)
    events: list[Event] = [step(0, number) for number in range(1, 6)]
    for event in events:
        journal.append(event)
    assert list(tail.new_events()) == []
    slow_disk.set()
    failed = SequenceFailed(reason="it ended")
    journal.append(failed)
    assert list(tail.new_events()) == [*events, failed]


def test_the_last_steps_are_written_without_another_call(tmp_path: Path) -> None:
    """Also those that come while the thread is about to end: of many rounds, each ends with all steps in the file."""
    journal, tail = ThreadedJournal(tmp_path), Tail(tmp_path)
    for number in range(1, 200):
        journal.append(step(0, number))
        deadline = time.monotonic() + 60
        while not tail.has_news() and time.monotonic() < deadline:
            time.sleep(0)
        assert numbers(tail) == [number]


def test_what_a_thread_could_not_write_is_raised_by_a_later_call(tmp_path: Path) -> None:
    folder = tmp_path / "sequence"
    folder.write_text("a file where the folder would be")
    journal = ThreadedJournal(folder)
    journal.append(step(0, 1))
    with pytest.raises(FileExistsError):
        journal.flush()
    folder.unlink()
    journal.append(step(0, 2))
    journal.flush()
    assert numbers(Tail(folder)) == [2]
