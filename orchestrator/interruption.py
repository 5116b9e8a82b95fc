"""Signals that end a command: SIGINT (Ctrl-C), SIGTERM (of a scheduler) and SIGHUP (of a terminal that closes).

The first one raises KeyboardInterrupt, or where work is under way that can be left in good order, only asks for that. The
next one ends the process on the spot.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOPPED = "stopped; the same command goes on from here"

# Who started this process may hand on a signal that the terminal has sent to both: no second wish
ECHO_SECONDS = 1.0


class _Interruption:
    """What this process was asked: by which signal first, and when."""

    signal_number: int | None = None
    time = 0.0
    is_deferred = False


_interruption = _Interruption()


def listen() -> None:
    """Handle the signals from now on. To be called again after anything that takes them for itself, as Ray does."""
    # another thread may not set handlers, and needs none: it is the main one that is interrupted
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        # `nohup` has some ignored, and so has a shell of what it starts in the background
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _handle)


def _handle(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if _interruption.signal_number is None:
        _interruption.signal_number = number
        _interruption.time = now
        if not _interruption.is_deferred:
            raise KeyboardInterrupt
    elif now - _interruption.time >= ECHO_SECONDS:
        leave_now()


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Meanwhile a first signal raises nothing; gives a function that says whether there was one. At the end it does."""
    before = _interruption.is_deferred
    _interruption.is_deferred = True
    try:
        yield was_asked
    finally:
        _interruption.is_deferred = before
    if was_asked():
        raise KeyboardInterrupt


def was_asked() -> bool:
    """Whether a signal has come."""
    return _interruption.signal_number is not None


def exit_code() -> int:
    """What a command ends with that was interrupted: the shells' number, 128 more than the signal's."""
    return 128 + (_interruption.signal_number or signal.SIGINT)


def leave_now() -> None:
    """End this process, with a line and with the exit code of the signal.

    Not by way of the interpreter's end: there, threads that still wait for Ray end in a dump of its stack.
    """
    line = f"{STOPPED}\n"
    if sys.stderr.isatty():
        # the table that is redrawn in place had hidden the cursor
        line = f"\x1b[?25h{line}"
    # what is buffered may be what was being written when the signal came
    with contextlib.suppress(RuntimeError, ValueError, OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    with contextlib.suppress(OSError):
        os.write(sys.stderr.fileno(), line.encode())
    os._exit(exit_code())
