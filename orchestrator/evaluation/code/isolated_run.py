"""Runs a program that nobody has read: in a process of its own, with limits of time and memory, no network and no files to write.

It is no full sandbox: the program can read what this user can read. Where that matters, run the whole in a container.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

SECONDS = 10
MEMORY_BYTES = 2**30
# What the launcher exits with where it cannot shut the network off
NOT_ISOLATED = 97
# Behind its last line a program exits with one of these, which it does not know: who leaves early, as by exit(0), fails
REACHED_THE_END = range(100, 250)

# Run by an interpreter of its own before the program, which takes its place: limits and namespaces stay over `exec`
LAUNCHER = """
import ctypes, os, resource, struct, sys
program, seconds, memory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
libc = ctypes.CDLL(None, use_errno=True)
NEWUSER, NEWNET = 0x10000000, 0x40000000
if libc.unshare(NEWUSER | NEWNET) and libc.unshare(NEWNET):
    sys.exit(97)
# Landlock, where the kernel has it: every kind of writing is denied everywhere
NO_NEW_PRIVS, WRITES = 38, 0b1111111110010
libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0)
denied = ctypes.create_string_buffer(struct.pack("Q", WRITES))
rules = libc.syscall(444, denied, 8, 0)
if rules >= 0:
    libc.syscall(446, rules, 0)
limits = {"AS": memory, "CPU": seconds, "FSIZE": 0, "CORE": 0, "NOFILE": 64}
for name, limit in limits.items():
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (limit, limit))
os.execv(sys.executable, [sys.executable, "-I", "-B", program])
"""


def passes(program: str, seconds: int = SECONDS, memory_bytes: int = MEMORY_BYTES) -> bool:
    """Whether a Python program comes to its last line. Raises RuntimeError where it cannot be isolated."""
    reached = secrets.choice(REACHED_THE_END)
    with tempfile.TemporaryDirectory(prefix="code-") as folder:
        file = Path(folder) / "program.py"
        file.write_text(f"{program}\n__import__('os')._exit({reached})\n", encoding="utf-8", errors="replace")
        command = [sys.executable, "-I", "-B", "-c", LAUNCHER, str(file), str(seconds), str(memory_bytes)]
        nothing = subprocess.DEVNULL
        # a group of its own: what the program starts ends with it
        with subprocess.Popen(
            command, cwd=folder, env={}, stdin=nothing, stdout=nothing, stderr=nothing, process_group=0
        ) as process:
            try:
                code = process.wait(seconds + 1)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end_group(process.pid)
    if code == NOT_ISOLATED:
        raise RuntimeError("a program that a model wrote is not run: this machine cannot shut it off from the network")
    return code == reached


def _end_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


@cache
def can_isolate() -> bool:
    """Whether this machine lets a process be shut off from the network."""
    try:
        return passes("")
    except RuntimeError:
        return False
