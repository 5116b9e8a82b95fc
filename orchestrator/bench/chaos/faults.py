"""What can be done to a run, by name: each happens to one process, at a fraction of the time for which there is such a one."""

from __future__ import annotations

import contextlib
import resource
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil

from orchestrator.bench.chaos.processes import Command, Role
from orchestrator.errors import UserError

# How long a process stands still, and a storage refuses writes
LONGEST_PAUSE = 8.0

Strike = Callable[[Command, psutil.Process, Random], str]


@dataclass(frozen=True)
class Fault:
    """A fault: whom it strikes, and how. `strike` returns what it did in a few words, nothing where there was nothing to strike.

    One that happens between two starts needs the second one, though the first may have ended well.
    """

    target: Role
    strike: Strike
    between_starts: bool = False


def _send(number: signal.Signals) -> Strike:
    def strike(command: Command, process: psutil.Process, rng: Random) -> str:
        process.send_signal(number)
        return f"{number.name} to process {process.pid}"

    return strike


def _kill_group(command: Command, process: psutil.Process, rng: Random) -> str:
    command.kill_group()
    return f"SIGKILL to group {process.pid}"


def _pause(command: Command, process: psutil.Process, rng: Random) -> str:
    seconds = rng.uniform(1.0, LONGEST_PAUSE)
    process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    # Ray may have taken it for dead meanwhile
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGCONT)
    return f"SIGSTOP for {seconds:.1f} s to process {process.pid}"


def _flip(pattern: str) -> Strike:
    """Kill a run, and change a bit in a file of its output folder before it is started again."""

    def strike(command: Command, process: psutil.Process, rng: Random) -> str:
        # the first of them may be still to come
        while command.is_running and not any(command.place.out.glob(pattern)):
            time.sleep(0.05)
        command.kill_group()
        # a worker that has not noticed yet must not write after the flip
        command.place.end_all()
        files = sorted(file for file in command.place.out.glob(pattern) if file.stat().st_size)
        if not files:
            return ""
        file = rng.choice(files)
        return f"bit {flip_bit(file, rng)} of {file.relative_to(command.place.out)}"

    return strike


def flip_bit(file: Path, rng: Random) -> int:
    """Change one bit of a file; gives its number."""
    content = bytearray(file.read_bytes())
    bit = rng.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    return bit


def _fill_disk(command: Command, process: psutil.Process, rng: Random) -> str:
    """Have every write to a file fail for a while, as on a disk without room; renames and new empty files succeed there too."""
    seconds = rng.uniform(1.0, LONGEST_PAUSE)
    _limit_files(command, 0)
    time.sleep(seconds)
    _limit_files(command, resource.RLIM_INFINITY)
    return f"no write for {seconds:.1f} s"


def _limit_files(command: Command, most_bytes: int) -> None:
    writers: list[psutil.Process] = [*command.having("driver"), *command.having("worker"), *command.having("scorer")]
    # Python's processes alone, which get an error; Ray's own in C++ would be ended by a signal, which no full disk sends
    for process in writers:
        with contextlib.suppress(psutil.NoSuchProcess):
            _, hard = process.rlimit(resource.RLIMIT_FSIZE)
            process.rlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))


def _make_read_only(command: Command, process: psutil.Process, rng: Random) -> str:
    seconds = rng.uniform(1.0, LONGEST_PAUSE)
    modes: dict[Path, int] = {}
    for path in (command.place.out, *sorted(command.place.out.rglob("*"))):
        # what is being written comes and goes
        with contextlib.suppress(FileNotFoundError):
            modes[path] = path.stat().st_mode
            path.chmod(modes[path] & ~0o222)
    time.sleep(seconds)
    for path, mode in modes.items():
        with contextlib.suppress(FileNotFoundError):
            path.chmod(mode)
    return f"read-only for {seconds:.1f} s"


FAULTS: dict[str, Fault] = {
    "kill-driver": Fault("driver", _send(signal.SIGKILL)),
    "kill-group": Fault("driver", _kill_group),
    "kill-worker": Fault("worker", _send(signal.SIGKILL)),
    "kill-scorer": Fault("scorer", _send(signal.SIGKILL)),
    "kill-controller": Fault("controller", _send(signal.SIGKILL)),
    "kill-raylet": Fault("raylet", _send(signal.SIGKILL)),
    "kill-gcs": Fault("gcs", _send(signal.SIGKILL)),
    "kill-at-birth": Fault("database", _kill_group),
    "terminate": Fault("driver", _send(signal.SIGTERM)),
    "interrupt": Fault("driver", _send(signal.SIGINT)),
    "pause-driver": Fault("driver", _pause),
    "pause-worker": Fault("worker", _pause),
    "flip-journal": Fault("worker", _flip("sequences/*/*.jsonl"), between_starts=True),
    "flip-score": Fault("worker", _flip("scores/*.json"), between_starts=True),
    "flip-weights": Fault("worker", _flip("checkpoints/[!.]*/weights*.safetensors"), between_starts=True),
    "flip-in-task": Fault("worker", _flip("in_task/checkpoints/[!.]*/*.safetensors"), between_starts=True),
    "full-disk": Fault("worker", _fill_disk),
    "read-only": Fault("worker", _make_read_only),
}


def check_kinds(names: Iterable[str]) -> tuple[str, ...]:
    """The kinds of those names, all where none is given. Raises UserError for a name that there is not."""
    kinds = tuple(names)
    for kind in kinds:
        if kind not in FAULTS:
            raise UserError(f"--kinds: {kind!r} is no kind of fault; allowed: {', '.join(FAULTS)}")
    return kinds or tuple(FAULTS)
