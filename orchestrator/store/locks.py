"""Locks of the operating system, in files that all workers see: each ends with the process that holds it.

On a shared folder a lock may outlive its holder: the server waits for a machine that is gone. So whoever holds one gives a sign
of life beside it, and others that see none for long, by their own clocks, leave the file to the holder that is gone and go on
with a new one. In an object store a lock is a lease (`storage.leases`), which ends of itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from filelock import BaseFileLock, FileLock, Timeout

from orchestrator.storage import fence
from orchestrator.storage.places import is_local

logger = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
# a holder is not given up while a shared folder, or all of Python in it, only stands still for a moment
GONE_SECONDS = 60.0
# there is no call that waits on shared storage with a time limit: it is asked ten times a second
POLL_SECONDS = 0.1


class Sign(NamedTuple):
    """A sign of life: the kernel on which the holder runs, and a time that is only compared with itself."""

    kernel: str
    beat: int


# what was seen last of each lock that another one held, and when that was first seen on this process's clock
_seen: dict[Path, tuple[Sign, float]] = {}
# locks that were taken over from this process, which was silent for too long
_lost: set[Path] = set()


@contextlib.contextmanager
def exclusive_lock(folder: Path, name: str, timeout: float) -> Iterator[bool]:
    """Try to be the only holder of that name; gives False if another still is after `timeout` seconds (-1: wait for ever)."""
    if not is_local(folder):
        from orchestrator.storage import leases

        with leases.held(folder / f"{name}.lock", timeout) as is_mine:
            yield is_mine
        return
    folder.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + timeout
    while (held := _try(folder, name)) is None:
        if timeout >= 0 and time.monotonic() >= ends:
            yield False
            return
        time.sleep(POLL_SECONDS)
    path = Path(held.lock_file)
    ended = threading.Event()
    beats = threading.Thread(target=_beat, args=(path, ended), daemon=True, name="signs of life")
    beats.start()
    try:
        yield True
    finally:
        ended.set()
        # only for a moment: the storage may be out of reach
        beats.join(timeout=1.0)
        _lost.discard(path)
        with contextlib.suppress(OSError):
            _sign_file(path).unlink()
        held.release()


def _try(folder: Path, name: str) -> BaseFileLock | None:
    """The lock, if it is free now."""
    path = _current(folder, name)
    # one thread may take it and another give it back: a state's lock goes with the state to the thread that writes it
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if _is_abandoned(path):
            logger.warning("%s is taken over: no sign of life of its holder for %g s", path, GONE_SECONDS)
            # whoever finds the same does the same, and only one of them gets the new file's lock
            _next(path).touch()
        return None
    with contextlib.suppress(OSError):
        _sign_file(path).write_text(_kernel())
    # looked at last: the client of a shared folder knows what is in it for sure once it has written there itself
    if path != _current(folder, name):
        lock.release()
        return None
    return lock


def has_lost_a_lock() -> bool:
    """Whether a lock that this process holds was taken over by another one, which took this one for gone."""
    return bool(_lost) or fence.is_over()


def _current(folder: Path, name: str) -> Path:
    """The file of that lock: the first one, or the last that was begun when the holder of the one before was gone."""
    path = folder / f"{name}.lock"
    while _next(path).exists():
        path = _next(path)
    return path


def _next(path: Path) -> Path:
    return path.with_name(f"{path.stem}~.lock")


def _sign_file(path: Path) -> Path:
    return path.with_suffix(".alive")


def _beat(path: Path, ended: threading.Event) -> None:
    """Give signs of life of a lock's holder until it is given back, or lost."""
    while not ended.wait(BEAT_SECONDS):
        # a shared folder that is out of reach for a moment is no reason to end
        with contextlib.suppress(OSError):
            # needs no room, so that nobody is taken for gone because a disk is full
            os.utime(_sign_file(path))
            if _next(path).exists():
                logger.warning("%s was taken over by another process", path)
                _lost.add(path)


def _is_abandoned(path: Path) -> bool:
    """Whether the holder of a lock, on another machine, has given no sign of life for as long as this process has looked."""
    sign = _read_sign(path)
    now = time.monotonic()
    # the kernel of a holder on this machine ends its lock with it
    if sign is None or sign.kernel == _kernel():
        return False
    if path not in _seen or _seen[path][0] != sign:
        _seen[path] = (sign, now)
    return now - _seen[path][1] >= GONE_SECONDS


def _read_sign(path: Path) -> Sign | None:
    try:
        # opened, not only looked at: a shared folder's client then asks its server
        with _sign_file(path).open() as stream:
            return Sign(stream.read(), os.fstat(stream.fileno()).st_mtime_ns)
    except OSError:
        return None


def _kernel() -> str:
    """The running system that this process shares its locks with, containers included."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()
