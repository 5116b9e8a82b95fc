"""The experiment orchestrator for continual learning of language models.

`run_sequence` trains one sequence in any Python process; the command line runs experiments on Ray.
"""

from orchestrator.config.experiment import RunConfig
from orchestrator.config.loading import load_config
from orchestrator.errors import UserError
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.training.sequence import run_sequence

__all__ = ["RunConfig", "SequencePlan", "UserError", "load_config", "plan", "run_sequence"]
