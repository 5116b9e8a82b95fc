"""A plug-in of a user's own that raises, dies or is slow in a hook: its source, and which of its lines a log must name."""

from __future__ import annotations

from pathlib import Path

HOOKS = (
    "before_task",
    "before_step",
    "on_batch",
    "after_forward",
    "add_gradients",
    "before_optimizer_step",
    "after_optimizer_step",
    "measure",
    "after_task",
    "state_dict",
    "load_state_dict",
)

SOURCE = """
import os
import signal
import time

import torch

from methods.base import Method
from methods.base import Settings as Base


class Broken(Method):
    class Settings(Base):
        hook: str
        rank: int = -1
        how: str = "raise"
        while_there: str = ""

    def _call(self, hook):
        rank = int(os.environ.get("RANK", "0"))
        if hook != self.settings.hook or self.settings.rank not in (-1, rank):
            return
        if self.settings.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.settings.how == "slow":
            if os.path.exists(self.settings.while_there):
                time.sleep(1.0)
            return
        if self.settings.how == "refuse":
            raise ValueError(f"no {hook} on worker {rank}")
        {}["a bracket [red] of " + hook]  # the user's line

    def before_task(self, model, task_id, batches):
        self._call("before_task")

    def before_step(self, model, batches):
        self._call("before_step")

    def on_batch(self, batch):
        self._call("on_batch")
        return batch

    def after_forward(self, model, batch, logits, loss):
        self._call("after_forward")
        return loss

    def add_gradients(self, model):
        self._call("add_gradients")

    def before_optimizer_step(self, model):
        self._call("before_optimizer_step")

    def after_optimizer_step(self, model):
        self._call("after_optimizer_step")

    def measure(self, model, task_id, batches):
        self._call("measure")

    def after_task(self, model, task_id, batches):
        self._call("after_task")

    def state_dict(self):
        self._call("state_dict")
        return {"seen": torch.zeros(1)}

    def load_state_dict(self, state):
        self._call("load_state_dict")
"""


def write_plugin(folder: Path, name: str) -> Path:
    """Write the plug-in as a module of its own, class `Broken`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(SOURCE)
    return path


def user_line(path: Path) -> str:
    """How a traceback names the line of the plug-in that raises."""
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if "# the user's line" in line:
            return f'File "{path}", line {number}, in _call'
    raise ValueError(f"{path} has no such line")


def hook_frame(path: Path, hook: str) -> str:
    """How a traceback names the hook of the plug-in that was called."""
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if f'_call("{hook}")' in line:
            return f'File "{path}", line {number}, in {hook}'
    raise ValueError(f"{path} has no hook {hook}")
