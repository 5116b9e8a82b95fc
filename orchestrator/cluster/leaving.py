"""How workers are asked to leave: by the command that started them, for another number of them, or because a machine goes."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from orchestrator.errors import StorageFailed
from orchestrator.storage.places import folder_at, seconds_between_looks
from orchestrator.store.locks import has_lost_a_lock

# in a step of milliseconds, to look at each would take more time than the step
LOOK_SECONDS = 1.0
# Longer than it takes to end a step and to write the state, and shorter than schedulers wait before they kill
LEAVE_SECONDS = 15.0


def make_leave_file(out: str, run: str) -> Path:
    """The file that asks the workers of a run to leave, once there is something in it."""
    file = folder_at(out) / "ray" / f"{run}.leave"
    file.parent.mkdir(parents=True, exist_ok=True)
    # now: where a shared folder has no such file, its clients remember that for a while
    file.touch()
    return file


def ask_to_leave(file: Path) -> None:
    """Ask all workers of a run to leave."""
    # where nothing can be written, they are ended without being asked
    with contextlib.suppress(OSError, StorageFailed):
        file.write_text("leave")


def take_back(file: Path) -> None:
    """Ask nobody any more."""
    with contextlib.suppress(OSError, StorageFailed):
        file.write_text("")


def is_asked_to_leave(file: Path) -> bool:
    """Whether the workers of a run are to leave."""
    try:
        # opened, and not only looked at: a shared folder's client then asks its server
        return bool(file.read_text())
    except (OSError, StorageFailed):
        return False


class Leaving:
    """What the first worker of a group asks after each step: whether the group is to leave.

    So is one whose lock of the sequence another group has taken over, because it had been silent for too long.
    """

    def __init__(self, *files: Path) -> None:
        self.files = files
        self.pause = seconds_between_looks(str(files[0]), LOOK_SECONDS)
        self.looked = -self.pause
        self.answer = False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self.answer and now - self.looked >= self.pause:
            self.looked = now
            asked = any(map(is_asked_to_leave, self.files))
            self.answer = asked or has_lost_a_lock() or _is_machine_taken_away()
        return self.answer


def _is_machine_taken_away() -> bool:
    """Whether Ray knows that a machine of this group's workers will soon be gone."""
    from ray.train.v2._internal.execution.context import get_train_context

    # `ray.train.get_preemption_info` says it too, and has all workers wait for each other to say it
    return get_train_context().preemption_context.preemption_info is not None
