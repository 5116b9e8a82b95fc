"""The logits that the loss looks at, of each kind of model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from methods import TokenStream
from methods.shared.answer_logits import answer_logits
from orchestrator.training.learner import Learner
from orchestrator.training.task import TaskBatches
from tests.conftest import FAMILIES
from tests.methods import toy


def test_answer_logits_of_each_kind_of_model() -> None:
    logits = torch.arange(24.0).view(2, 4, 3)
    decoder = toy.batch(labels=torch.tensor([[-100, -100, 5, 6], [-100, 7, -100, -100]]))
    # the logits at tokens 1 and 2 of the first example ask for its labels at 2 and 3
    assert torch.equal(answer_logits(decoder, logits), torch.stack([logits[0, 1], logits[0, 2], logits[1, 0]]))
    read = TokenStream(torch.zeros(2, 4), torch.ones(2, 4))
    both = toy.batch(labels=torch.tensor([[5, 6, -100, -100], [7, -100, -100, -100]]), source=read, target=read)
    assert torch.equal(answer_logits(both, logits), torch.stack([logits[0, 0], logits[0, 1], logits[1, 0]]))
    classifier = toy.batch(labels=torch.tensor([0, 1]))
    assert torch.equal(answer_logits(classifier, logits[:, 0]), logits[:, 0])


@pytest.mark.parametrize("model", FAMILIES)
def test_answer_logits_give_back_the_loss(model: str, learner_of: Callable[..., Learner]) -> None:
    """Cross-entropy of those logits against the labels is the training loss: they are the right ones in the right order."""
    learner = learner_of(model=model)
    learner.family.at_task(0, 3)
    batch = next(iter(TaskBatches(learner, learner.features(0), 0)))
    loss, logits = learner.forward(learner.family.module, batch)
    labels = batch.labels.flatten()
    found = answer_logits(batch, logits)
    assert len(found) == (labels != -100).sum()
    again = nn.functional.cross_entropy(found, labels[labels != -100], reduction="sum")
    torch.testing.assert_close(again, loss)
