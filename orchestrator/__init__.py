"""The experiment orchestrator for continual learning of language models.

`run_sequence` trains one sequence in any Python process; the command line runs experiments on Ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.config.experiment import RunConfig
    from orchestrator.config.loading import load_config
    from orchestrator.errors import UserError
    from orchestrator.planning.planner import plan
    from orchestrator.planning.sequence_plan import SequencePlan
    from orchestrator.training.sequence import run_sequence

__all__ = ["RunConfig", "SequencePlan", "UserError", "load_config", "plan", "run_sequence"]

_HOMES = {
    "RunConfig": "orchestrator.config.experiment",
    "SequencePlan": "orchestrator.planning.sequence_plan",
    "UserError": "orchestrator.errors",
    "load_config": "orchestrator.config.loading",
    "plan": "orchestrator.planning.planner",
    "run_sequence": "orchestrator.training.sequence",
}


def __getattr__(name: str) -> Any:
    # imported when it is asked for: torch takes over a second, and `--help` needs none of it
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
