"""The learner that a measurement trains or asks: of one worker, outside any store."""

from __future__ import annotations

import torch

from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel


def measured_learner(sequence: SequencePlan) -> Learner:
    """A learner that holds the initial model, on the GPU where there is one: there training would run too."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    learner = Learner(sequence, sequence.open_stream("nothing: a measurement"), Parallel.current(device))
    learner.load_initial()
    return learner
