"""Where a failure is found again: the log files of a run, and what the program's loggers write.

Below an output folder, `logs/` has a folder for each sequence with a file for each worker (`worker-0.log`) and for each state
that is scored beside it (`scoring-after-3.log`), and files for what belongs to no sequence: `tracking.log`, `driver.log`,
`trials/<trial>.log`.
Each module has one logger, `logging.getLogger(__name__)`. On the screen they are quiet unless `--verbose` is given; in a worker
they write into the file of what the worker does.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from rich.console import Console

from orchestrator.errors import StorageFailed
from orchestrator.redaction import redacted
from orchestrator.storage.lines import appended
from orchestrator.storage.places import folder_at

PACKAGES = ("orchestrator", "methods", "streams")
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def sequence_logs(out: str | Path, sequence_id: str) -> Path:
    """The folder of a sequence's log files."""
    return folder_at(out) / "logs" / sequence_id


def worker_log(out: str | Path, sequence_id: str, worker: int) -> Path:
    """The log of one worker of a sequence."""
    return sequence_logs(out, sequence_id) / f"worker-{worker}.log"


def scoring_log(out: str | Path, sequence_id: str, tasks_seen: int) -> Path:
    """The log of the scoring of the state after `tasks_seen` tasks."""
    return sequence_logs(out, sequence_id) / f"scoring-after-{tasks_seen}.log"


def tracking_log(out: str | Path) -> Path:
    """The log of the copy to MLflow."""
    return folder_at(out) / "logs" / "tracking.log"


def trial_log(out: str | Path, trial: str) -> Path:
    """The log of the process that drives one trial of a search."""
    return folder_at(out) / "logs" / "trials" / f"{trial}.log"


def driver_log(out: str | Path) -> Path:
    """The log of the command itself."""
    return folder_at(out) / "logs" / "driver.log"


def ray_logs(out: str | Path, run: str) -> Path:
    """The folder for copies of what Ray wrote about the workers of a run that failed."""
    return folder_at(out) / "logs" / f"ray-{run}"


def reason(error: BaseException) -> str:
    """What went wrong, in one line: the kind of the error and the first line of its message."""
    lines = str(error).strip().splitlines()
    first_line = lines[0] if lines else "no message"
    return redacted(f"{type(error).__name__}: {first_line}")


def traceback_of(error: BaseException) -> str:
    """The whole traceback as Python prints it, causes included, without passwords and tokens."""
    return redacted("".join(traceback.format_exception(error)))


def write_failure(path: str | Path, what: str, error: BaseException) -> None:
    """Append a failure to a log file: when, what failed, and the whole traceback.

    A log that cannot be written must not hide the failure itself, so a full disk is passed over here.
    """
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    with contextlib.suppress(OSError, StorageFailed), appended(folder_at(path)) as stream:
        stream.write(f"{now} FAILED {what}\n{traceback_of(error)}\n")


class _Quiet(logging.StreamHandler[TextIO]):
    """Passes over what cannot be written, of which Python would print a traceback for each line while a disk is full."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Do nothing: what fails for want of storage says so where it matters."""


class _RedactingFormatter(logging.Formatter):
    """What a library logs may have the address that it was given, with the password."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, or the lines, of a record."""
        return redacted(super().format(record))


@contextlib.contextmanager
def to_file(path: Path) -> Iterator[None]:
    """Send what this process logs, from INFO upwards, to a file; what a user's own module logs too.

    Where the process ends by a signal such as a segmentation fault, Python's stack is written there as its last words.
    """
    # appended: a sequence that was started again has all its attempts in one file
    with appended(path) as stream:
        yield from _logged_to(stream)


def _logged_to(stream: TextIO) -> Iterator[None]:
    handler = _Quiet(stream)
    handler.setFormatter(_RedactingFormatter(FORMAT))
    # the root, since a plug-in of one's own has a logger outside our packages
    root = logging.getLogger()
    level_before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    # its stack is written by a signal handler, past the loggers
    faulthandler.enable(file=stream, all_threads=False)
    try:
        yield
    finally:
        # back to stderr before the file is closed: a crash would write into whatever has its number by then
        faulthandler.enable(all_threads=False)
        root.removeHandler(handler)
        root.setLevel(level_before)
        # what a full disk did not take is tried once more here
        with contextlib.suppress(OSError):
            stream.close()


@contextlib.contextmanager
def failures_to(path: Path, what: str) -> Iterator[None]:
    """Append to a log file with what an error ends; the error goes on."""
    try:
        yield
    except Exception as error:
        write_failure(path, what, error)
        raise


def show_progress(console: Console) -> None:
    """Print what our own modules log, from INFO upwards (`--verbose`)."""
    from rich.logging import RichHandler

    handler = RichHandler(console=console, show_path=False, log_time_format="%H:%M:%S")
    # not the root: at INFO, Ray, MLflow and transformers would bury our own lines
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.setLevel(logging.INFO)
        # a second command in the same process prints each line once all the same
        for earlier in list(logger.handlers):
            logger.removeHandler(earlier)
        logger.addHandler(handler)
