"""MoCL: cosines by hand, the vector that a task starts from, and that it is trained by the loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from methods.routing.mocl import Mocl
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task


def mocl_learner(learner_of: Callable[..., Learner], **settings: object) -> tuple[Learner, Mocl]:
    learner = learner_of(methods=[{"tuning": {"name": "mocl", "r": 2, **settings}}], stream={"max_train": 12})
    tuning = learner.stack.tuning
    assert isinstance(tuning, Mocl)
    return learner, tuning


def test_gates_are_cosines_with_the_tasks_vectors(learner_of: Callable[..., Learner]) -> None:
    learner, tuning = mocl_learner(learner_of)
    learner.stack.grow(learner.family.module, 2)
    batch = learner.family.collate(learner.features(0)[:2])
    query = tuning.embed(batch)
    torch.testing.assert_close(query.norm(dim=1), torch.ones(2))
    with torch.no_grad():
        # along the first text, three times as long; and against the second one
        tuning.vectors[0].copy_(3 * query[0])
        tuning.vectors[1].copy_(-query[1])
    embeds = tuning.reader.embeddings(batch.source.ids)
    learner.family.module.eval()
    gates = tuning.gates(embeds, batch.source.mask, training=False)
    cosine = float(query[0] @ query[1])
    torch.testing.assert_close(gates, torch.tensor([[1.0, -cosine], [cosine, -1.0]]), atol=1e-5, rtol=1e-5)
    assert abs(cosine) < 0.999, "else the two texts would not be told apart"


def test_a_vector_starts_from_the_mean_of_its_texts_and_is_trained(learner_of: Callable[..., Learner]) -> None:
    learner, tuning = mocl_learner(learner_of, samples=None)
    learner.stack.grow(learner.family.module, 1)
    texts = tuning.embed(learner.family.collate(learner.features(0)))
    tuning.before_task(learner.family.module, 0, learner.batches(learner.features(0)))
    start = tuning.vectors[0].detach().clone()
    torch.testing.assert_close(start, F.normalize(texts.double().mean(0), dim=0).float(), atol=1e-5, rtol=1e-5)
    train_task(learner, 0, lambda event: None)
    assert not torch.equal(tuning.vectors[0], start)
    first = tuning.vectors[0].detach().clone()
    train_task(learner, 1, lambda event: None)
    assert torch.equal(tuning.vectors[0], first), "an earlier task's vector stays"
    assert tuning.vectors[0].requires_grad is False
