"""A learner on two small generated corpora."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.training.learner import Learner

CORPORA: dict[str, Any] = {"name": "embedded-cpt", "first": 2, "max_train": 3, "max_test": 2}


def corpus_learner(learner_of: Callable[..., Learner], model: str, **changes: Any) -> Learner:
    """A learner that holds the initial model of a small configuration."""
    stream = {**CORPORA, **changes.pop("stream", {})}
    return learner_of(model=model, stream=stream, **changes)
