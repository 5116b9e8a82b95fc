"""Copies of what Ray wrote about a process of its own that failed: what it printed, and how Ray saw it end.

Ray keeps these files in a folder of its session on the machine of the process, which outlives neither the machine nor, often,
the cluster. Only the end of each file is copied.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.redaction import redacted

logger = logging.getLogger(__name__)

TAIL_BYTES = 64 * 1024
RAYLET_LINES = 50
TIMEOUT_S = 30


@dataclass(frozen=True)
class RayProcess:
    """A process that Ray started: which machine it is on, and where Ray's files on it are; and the attempt that it works at."""

    pid: int
    machine: str
    node_id: str
    worker_id: str
    session_logs: str
    attempt: str = ""

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.machine}"


def this_process(attempt: str = "") -> RayProcess:
    """The process that calls, which must be one of Ray's workers."""
    import ray
    import ray._private.worker

    context = ray.get_runtime_context()
    # Ray has no public name for the folder of its log files
    node: Any = ray._private.worker._global_node
    return RayProcess(
        pid=os.getpid(),
        machine=ray.util.get_node_ip_address(),
        node_id=context.get_node_id(),
        worker_id=context.get_worker_id(),
        session_logs=str(node.get_logs_dir_path()),
        attempt=attempt,
    )


def introduction(folder: Path, rank: int) -> Path:
    """The file in which a worker of a group writes down who it is."""
    return folder / f"worker-{rank}.json"


def introduce(path: Path, attempt: str = "") -> RayProcess:
    """Write down who this process is and what it begins, for when it can no longer say so itself."""
    process = this_process(attempt)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(process)))
    return process


def introduced(path: Path) -> RayProcess | None:
    """The process that wrote itself down in a file; None where none did."""
    try:
        return RayProcess(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def copy_ray_logs(process: RayProcess, folder: Path, name: str) -> list[Path]:
    """Copy the ends of Ray's files on a process into a folder, whichever machine they are on; gives the copies.

    Their names begin with `name`. Where the machine is gone too, nothing is copied.
    """
    try:
        tails = _fetch(process)
    except Exception as error:  # the logs of a failure must not become a second failure
        logger.warning("Ray's logs of %s could not be read: %s", process, error)
        return []
    copies = []
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, content in tails.items():
        copy = folder / f"{name}-pid-{process.pid}.{suffix}"
        # what a library printed may have a password in it; not all bytes there are text
        text = redacted(content.decode(errors="surrogateescape"))
        copy.write_bytes(text.encode(errors="surrogateescape"))
        copies.append(copy)
    return copies


def _fetch(process: RayProcess) -> dict[str, bytes]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if process.node_id == ray.get_runtime_context().get_node_id():
        return read_tails(process)
    # needs no CPU: a cluster whose CPUs all train must still be able to read a file
    there = NodeAffinitySchedulingStrategy(process.node_id, soft=False)
    task = ray.remote(read_tails).options(num_cpus=0, scheduling_strategy=there)
    tails: dict[str, bytes] = ray.get(task.remote(process), timeout=TIMEOUT_S)
    return tails


def read_tails(process: RayProcess) -> dict[str, bytes]:
    """The ends of the files on a process that lie on this machine, by what they are: `out`, `err`, `core.log`, `raylet.log`."""
    session = Path(process.session_logs)
    tails: dict[str, bytes] = {}
    for suffix, pattern in (
        ("out", f"worker-{process.worker_id}-*.out"),
        ("err", f"worker-{process.worker_id}-*.err"),
        ("core.log", f"python-core-worker-{process.worker_id}_*.log"),
    ):
        for path in session.glob(pattern):
            content = _tail(path)
            if content:
                tails[suffix] = content
    # that a process was ended for want of memory is known to the raylet alone
    mentions = _mentions(session / "raylet.out", process)
    if mentions:
        tails["raylet.log"] = mentions
    return tails


def _tail(path: Path) -> bytes:
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - TAIL_BYTES))
        return stream.read()


def _mentions(path: Path, process: RayProcess) -> bytes:
    """The last lines of a file that name a process."""
    if not path.exists():
        return b""
    lines: deque[bytes] = deque(maxlen=RAYLET_LINES)
    with path.open("rb") as stream:
        for line in stream:
            if process.worker_id.encode() in line or b"pid %d" % process.pid in line:
                lines.append(line)
    return b"".join(lines)


def death(who: str, process: RayProcess | None, error: Exception) -> str:
    """How a process ended that nobody heard from, in one line."""
    which = f"{who} ({process})" if process else who
    return f"{which} ended without a word (killed, out of memory, or crashed): {exit_reason(str(error))}"


def exit_reason(message: str) -> str:
    """What is particular to this end in one of Ray's long messages: the type of the exit and its detail."""
    exit_type = re.search(r"Worker exit type: (\w+)", message)
    exit_detail = re.search(r"Worker exit detail: (.+)", message)
    if exit_type and exit_detail:
        # what follows are Ray's guesses, the same for each end
        detail = re.split(r"\.? (?:Some common causes|There are some potential)", exit_detail[1])[0].strip()
        return f"{exit_type[1]}, {detail}"
    lines = message.strip().splitlines()
    if not lines:
        return "no message"
    return lines[-1].strip()
