"""Locks of the operating system, in files that all workers see: each ends with the process that holds it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


@contextlib.contextmanager
def exclusive_lock(folder: Path, name: str, timeout: float) -> Iterator[bool]:
    """Try to be the only holder of that name; gives False if another still is after `timeout` seconds (-1: wait for ever)."""
    folder.mkdir(parents=True, exist_ok=True)
    # one thread may take it and another give it back: a state's lock goes with the state to the thread that writes it
    file_lock = FileLock(folder / f"{name}.lock", thread_local=False)
    try:
        # there is no call that waits on shared storage with a time limit: it is asked ten times a second
        file_lock.acquire(timeout=timeout, poll_interval=0.1)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        file_lock.release()
