"""States inside a task, of which only the newest of each task is kept, and none once the task is over.

They lie beside the checkpoints, in a folder of their own, so that nobody takes one for a state after a task.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.storage.folders import remove_folder
from orchestrator.store.checkpoints import State, Store
from orchestrator.store.states.state_files import PackedState

logger = logging.getLogger(__name__)


class InTaskStates:
    """The states inside the task that leads to a checkpoint. To be used with the lock of its key held."""

    def __init__(self, root: Path, key: str) -> None:
        self.key = key
        self.store = Store(root / "in_task")

    def write(self, step: int, packed: PackedState, made_by: Mapping[str, Any]) -> int:
        """Write the state after a step, and remove those before it; gives its size in bytes."""
        name = self._name(step)
        size = self.store.write(name, packed, made_by)
        self._remove_but(name)
        return size

    def newest(self) -> State | None:
        """The state that is furthest on and whole; None where there is none. Damaged ones are removed."""
        for name in sorted(self._names(), reverse=True):
            if self.store.is_sound(name):
                return self.store.load(name, resume_state=True)
            logger.warning("%s is damaged; its task goes on from before it", self.store.path(name))
            remove_folder(self.store.path(name))
        return None

    def remove(self) -> None:
        """Remove all of them: the task is over."""
        self._remove_but("")

    def _name(self, step: int) -> str:
        # with leading zeros, so that names are in the order of the steps
        return f"{self.key}-{step:010d}"

    def _names(self) -> list[str]:
        return [folder.name for folder in (self.store.root / "checkpoints").glob(f"{self.key}-*")]

    def _remove_but(self, kept: str) -> None:
        for name in self._names():
            if name != kept:
                remove_folder(self.store.path(name))
