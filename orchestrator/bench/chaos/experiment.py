"""The experiment that faults happen to: small, yet with all that a large one has."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml


class Setting(NamedTuple):
    """How many workers train, and where scores are computed."""

    workers: int
    placement: str

    def __str__(self) -> str:
        return f"{self.workers}-{self.placement}"


SETTINGS = (Setting(1, "async"), Setting(1, "inline"), Setting(2, "async"), Setting(2, "inline"))


def recipe(setting: Setting) -> dict[str, Any]:
    """The experiment's configuration.

    One group of workers at a time, so that of several CPUs one is left for scoring beside training. Each method has what has
    to come back after a fault: MIGU its counters, replay its memory of old examples. A task is gone on with amid its steps.
    """
    return {
        "name": "chaos",
        # wide enough for a step to take tens of milliseconds: most moments of a run shall be moments of training
        "model": {"name": "tiny-t5", "overrides": {"d_model": 128, "d_ff": 512}, "max_source": 48, "max_target": 8},
        "streams": [{"name": "embedded", "first": 3, "max_train": 400, "max_test": 20}],
        "methods": ["ft+migu", {"tuning": "lora", "plugins": ["replay"]}],
        "seeds": [7],
        "training": {"lr": 1e-3, "epochs": 1, "global_batch": 8, "micro_batch": 4},
        "checkpoints": {"every_steps": 3},
        "evaluation": {"placement": setting.placement},
        "scaling": {"workers": setting.workers, "max_concurrent": 1},
    }


def command_line(folder: Path, setting: Setting) -> list[str]:
    """The command that runs the experiment, with its recipe and its output in a folder."""
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(setting)))
    return [sys.executable, "-m", "orchestrator", "run", str(file), "--out", str(folder / "out"), "--json"]
