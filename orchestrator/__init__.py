"""The experiment orchestrator for continual learning of language models.

`run_sequence` trains one sequence in any Python process; the command line runs experiments on Ray.
"""

from orchestrator.config import RunConfig
from orchestrator.errors import UserError
from orchestrator.loop import run_sequence
from orchestrator.plan import Sequence, plan
from orchestrator.reading import load_config

__all__ = ["RunConfig", "Sequence", "UserError", "load_config", "plan", "run_sequence"]
