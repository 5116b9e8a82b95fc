"""Programs that nobody has read: what they may do, and what they may not."""

from __future__ import annotations

import ctypes
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.evaluation.code import isolated_run
from orchestrator.evaluation.code.isolated_run import can_isolate, passes

pytestmark = pytest.mark.skipif(not can_isolate(), reason="this machine cannot shut a process off from the network")


@pytest.mark.parametrize(
    ("program", "passing"),
    [
        ("import collections, math\nassert math.comb(4, 2) == 6", True),
        ("assert 1 == 2", False),
        ("def f(:", False),
        ("import sys; sys.exit(3)", False),
        ("import sys; sys.exit(0)", False),
        ("import os; os._exit(0)", False),
        ("raise SystemExit", False),
        ("quit()", False),
        ("def f():\n    return 1  # no line's end", True),
        ("input()", False),
        ("x = bytearray(2**28)", True),
        ("x = bytearray(2**30)", False),
        ("import os\nassert not os.environ.get('HOME')", True),
        ("print('a' * 10**6)\nprint('ç')", True),
    ],
)
def test_a_program_passes_that_comes_to_its_last_line(program: str, passing: bool) -> None:
    assert passes(program, memory_bytes=2**29) == passing


@pytest.mark.parametrize("program", ["while True: pass", "import time; time.sleep(60)"])
def test_a_program_that_does_not_end_is_ended(program: str) -> None:
    started = time.monotonic()
    assert not passes(program, seconds=1)
    assert time.monotonic() - started < 30


def test_there_is_no_network() -> None:
    """Not even this machine's own; the same program reaches it where it is run as any other."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
        subprocess.run([sys.executable, "-c", program], check=True)
        assert not passes(program)


def _denies_writing() -> bool:
    """Whether the kernel has Landlock: its version is asked for."""
    return ctypes.CDLL(None).syscall(444, None, 0, 1) >= 1


@pytest.mark.skipif(not _denies_writing(), reason="this kernel has no Landlock, without which files may be emptied")
def test_nothing_is_written(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("text")
    for number, program in enumerate(("open({!r}, 'w').write('x')", "open({!r}, 'a').write('x')")):
        assert not passes(program.format(str(kept))), number
        assert not passes(program.format(str(tmp_path / f"new-{number}")))
    assert not passes("open('beside.py', 'w').write('x')")
    assert kept.read_text() == "text"


def test_what_it_starts_ends_with_it(tmp_path: Path) -> None:
    sleeper = "import time; time.sleep(120)"
    program = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleeper!r}, {str(tmp_path)!r}])"
    assert passes(program)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _is_running(str(tmp_path)):
        time.sleep(0.05)
    assert not _is_running(str(tmp_path))


def _is_running(argument: str) -> bool:
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if argument in entry.read_text().split("\0"):
                return True
        except OSError:
            continue
    return False


def test_without_isolation_nothing_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # as on a machine that lets nobody make a network of his own
    monkeypatch.setattr(
        isolated_run, "LAUNCHER", isolated_run.LAUNCHER.replace("libc.unshare(NEWUSER", "1 or (NEWUSER")
    )
    monkeypatch.setattr(isolated_run, "LAUNCHER", isolated_run.LAUNCHER.replace("libc.unshare(NEWNET)", "1"))
    with pytest.raises(RuntimeError, match="cannot shut it off from the network"):
        passes("")
