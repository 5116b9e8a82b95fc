"""What each fault does to a process and to its output folder. That a run survives them is measured, not tested."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from orchestrator.bench.chaos import faults
from orchestrator.bench.chaos.faults import FAULTS, check_kinds, flip_bit
from orchestrator.bench.chaos.processes import Command, at_place
from orchestrator.errors import UserError

# appends a line fifty times a second, and says what hinders it; a process of another group outlives it
WRITER = """
import pathlib, subprocess, sys, time
subprocess.Popen(["sleep", "60"], start_new_session=True)
out = pathlib.Path(sys.argv[1])
out.mkdir()
while True:
    try:
        with (out / "facts").open("a") as stream: stream.write("fact\\n")
        print("written", flush=True)
    except OSError as error:
        print(type(error).__name__, error.strerror, flush=True)
    time.sleep(0.02)
"""


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    with at_place(tmp_path, [sys.executable, "-c", WRITER, str(tmp_path / "out")]) as place:
        command = place.start()
        wait_for(lambda: "written" in command.printed("out"))
        yield command


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "LONGEST_PAUSE", 1.0)


def wait_for(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.02)


def strike(kind: str, command: Command) -> str:
    (process,) = command.having("driver")
    return FAULTS[kind].strike(command, process, Random(0))


def still_writes(command: Command) -> None:
    before = command.printed("out").count("written")
    wait_for(lambda: command.printed("out").count("written") > before)


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("kill-driver", signal.SIGKILL),
        ("kill-worker", signal.SIGKILL),
        ("kill-group", signal.SIGKILL),
        ("terminate", signal.SIGTERM),
        ("interrupt", signal.SIGINT),
    ],
)
def test_a_signal_ends_it(kind: str, number: signal.Signals, command: Command) -> None:
    assert str(command.driver.pid) in strike(kind, command)
    assert command.wait(30) == -number


def test_a_process_stands_still_for_a_while(command: Command) -> None:
    began = time.monotonic()
    assert strike("pause-driver", command).startswith("SIGSTOP for 1.0 s")
    assert time.monotonic() - began >= 1.0
    still_writes(command)
    lines = (command.place.out / "facts").read_text().count("\n")
    assert lines < 45, "it wrote while it stood still"


def test_a_full_disk_takes_nothing_and_then_all_again(command: Command) -> None:
    strike("full-disk", command)
    wait_for(lambda: "OSError File too large" in command.printed("out"))
    still_writes(command)


def test_a_read_only_folder_takes_nothing_and_has_its_modes_back(command: Command) -> None:
    before = [path.stat().st_mode for path in (command.place.out, command.place.out / "facts")]
    strike("read-only", command)
    wait_for(lambda: "PermissionError" in command.printed("out"))
    assert [path.stat().st_mode for path in (command.place.out, command.place.out / "facts")] == before
    still_writes(command)


def test_a_bit_is_flipped_when_nobody_writes_any_more(command: Command) -> None:
    folder = command.place.out / "scores"
    folder.mkdir()
    for name in ("a.json", "b.json", "empty.json"):
        (folder / name).write_bytes(b"" if name == "empty.json" else b"0123")
    assert strike("flip-score", command).endswith(".json")
    assert command.place.processes() == []
    changed = b"".join((folder / name).read_bytes() for name in ("a.json", "b.json"))
    assert sum((a ^ b).bit_count() for a, b in zip(changed, b"01230123", strict=True)) == 1


def test_a_run_that_ended_before_it_had_any_such_file_has_nothing_to_damage(command: Command) -> None:
    (process,) = command.having("driver")
    command.kill_group()
    assert FAULTS["flip-weights"].strike(command, process, Random(0)) == ""


def test_a_file_to_damage_is_waited_for(command: Command) -> None:
    folder = command.place.out / "scores"
    folder.mkdir()
    threading.Timer(0.5, lambda: (folder / "late.json").write_bytes(b"0123")).start()
    assert strike("flip-score", command).endswith("of scores/late.json")


def test_each_bit_may_be_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    seen = set()
    for seed in range(100):
        file.write_bytes(b"\0")
        bit = flip_bit(file, Random(seed))
        assert file.read_bytes() == bytes([1 << bit])
        seen.add(bit)
    assert seen == set(range(8))


def test_kinds_are_known_by_name() -> None:
    assert check_kinds([]) == tuple(FAULTS)
    assert check_kinds(["interrupt", "kill-gcs"]) == ("interrupt", "kill-gcs")
    with pytest.raises(UserError, match="--kinds: 'kill' is no kind of fault; allowed: kill-driver, "):
        check_kinds(["interrupt", "kill"])
