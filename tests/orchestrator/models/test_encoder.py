"""A classification head over the whole stream."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from orchestrator.models.encoder import EncoderWithHead
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task


def test_a_head_over_the_stream_with_untrained_rows_at_rest(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model="tiny-bert", training={"weight_decay": 0.1})
    family = learner.family
    assert isinstance(family, EncoderWithHead)
    assert family.output.out_features == 19
    before = family.output.weight.detach().clone()
    train_task(learner, 0, lambda event: None)
    assert torch.equal(family.output.weight[2:], before[2:]), "rows of later labels must not move"
    assert not torch.equal(family.output.weight[:2], before[:2])
    assert [p for p in family.head() if p is family.output.weight]


def test_a_task_without_labels_is_refused_in_one_line(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model="tiny-bert")
    free = SimpleNamespace(name="summaries", labels=())
    with pytest.raises(ValueError, match="task 'summaries' has no label set, and 'tiny-bert' is an encoder"):
        learner.family.features(free, [])  # type: ignore[arg-type]
