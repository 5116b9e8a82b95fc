"""The learner of a measurement."""

from __future__ import annotations

from collections.abc import Callable

import torch

from methods import trainable
from orchestrator.bench.learners import measured_learner
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.training.learner import Learner


def weights_of(learner: Learner) -> list[tuple[str, torch.Tensor]]:
    return list(trainable(learner.family.module).items())


def test_a_measurement_starts_from_the_initial_model(
    sequence_of: Callable[..., SequencePlan], learner_of: Callable[..., Learner]
) -> None:
    measured = measured_learner(sequence_of())
    trained = learner_of()
    assert measured.parallel.count == 1
    pairs = list(zip(weights_of(measured), weights_of(trained), strict=True))
    assert len(pairs) > 10
    for (name, weight), (other_name, other) in pairs:
        assert name == other_name and torch.equal(weight, other)
