"""Locks that all workers see: of the operating system, each of which ends with the process that holds it; or leases."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from orchestrator.storage.places import is_local


@contextlib.contextmanager
def exclusive_lock(folder: Path, name: str, timeout: float) -> Iterator[bool]:
    """Try to be the only holder of that name; gives False if another still is after `timeout` seconds (-1: wait for ever)."""
    if not is_local(folder):
        from orchestrator.storage.leases import held

        with held(folder / f"{name}.lock", timeout) as is_mine:
            yield is_mine
        return
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
