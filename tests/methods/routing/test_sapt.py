"""SAPT: the attention and its divergence by hand, and the gradient of old texts by finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from methods import trainable
from methods.replay.memory import kept
from methods.routing.sapt import Sapt, divergence, largest_embedding
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task


def test_the_largest_embedding_leaves_padding_out() -> None:
    embeds = torch.tensor([[[1.0, -5.0], [3.0, -6.0], [9.0, 9.0]], [[1.0, 1.0], [2.0, 0.0], [0.0, 5.0]]])
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    assert largest_embedding(embeds, mask).tolist() == [[3.0, -5.0], [0.0, 0.0]]


def test_the_divergence_by_hand() -> None:
    old = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    new = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    assert divergence(old, new).item() == pytest.approx(math.log(4.0))
    assert divergence(new, torch.tensor([[0.5, 0.5], [0.25, 0.75]])).item() == pytest.approx(
        0.25 * math.log(0.5) + 0.75 * math.log(1.5) + 0.5 * math.log(2.0) + 0.5 * math.log(2 / 3)
    )


def sapt_learner(learner_of: Callable[..., Learner], model: str, **settings: object) -> tuple[Learner, Sapt]:
    method = {"tuning": {"name": "sapt", "r": 2, "width": 4, "fraction": 0.25, **settings}}
    learner = learner_of(model=model, methods=[method], stream={"max_train": 16}, training={"lr": 3e-2})
    tuning = learner.stack.tuning
    assert isinstance(tuning, Sapt)
    return learner, tuning


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-llama"])
def test_the_attention_against_the_formula(model: str, learner_of: Callable[..., Learner]) -> None:
    learner, tuning = sapt_learner(learner_of, model)
    for task in range(2):
        train_task(learner, task, lambda event: None)
    router = tuning.router
    keys = torch.stack(list(router.keys))  # type: ignore[arg-type]
    for task in range(2):
        attention = []
        for feature in kept(learner.sequence.seed, task, learner.features(task), 0.25):
            embeds = tuning.reader.embeddings(torch.tensor(feature["source"]))
            hidden = F.silu(router.up.weight @ (router.down.weight @ embeds.amax(0)))  # type: ignore[union-attr]
            query = (hidden - hidden.mean()) / (hidden.var(unbiased=False) + 1e-5).sqrt()
            query = query * router.norm.weight + router.norm.bias  # type: ignore[union-attr]
            attention.append(((keys @ query) / math.sqrt(keys.shape[1])).softmax(0))
        expected = torch.stack(attention).mean(0)
        assert len(attention) == 4
        # the first task's was noted when there was one adapter; the second task's is the present one
        if task == 0:
            assert tuning.attention[0].tolist() == pytest.approx([1.0])
            assert 0 < expected[1] < 1
        else:
            torch.testing.assert_close(tuning.attention[1].float(), expected.detach(), rtol=1e-4, atol=1e-5)


def test_old_texts_hold_the_attention_and_strength_scales_it(learner_of: Callable[..., Learner]) -> None:
    learner, tuning = sapt_learner(learner_of, "tiny-t5", strength=3.0, batch=100)
    train_task(learner, 0, lambda event: None)
    learner.stack.grow(learner.family.module, 2)
    tuning.before_task(learner.family.module, 1, [])
    parameters = trainable(learner.family.module)
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    tuning.before_optimizer_step(learner.family.module)
    old = kept(learner.sequence.seed, 0, learner.features(0), 0.25)
    batch = learner.family.collate(old)

    def mean_divergence() -> torch.Tensor:
        largest = (
            tuning.reader.embeddings(batch.source.ids).masked_fill(batch.source.mask[..., None] == 0, -1e9).amax(1)
        )
        # all of the first task's attention was on its own adapter: KL = -log of what it gets now
        return -tuning.router(largest)[:, 0].log().mean()

    names = [name for name in parameters if name.startswith("adapter_router.")]
    expected = torch.autograd.grad(mean_divergence(), [parameters[name] for name in names])
    for name, gradient in zip(names, expected, strict=True):
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(parameters[name].grad, 3 * gradient, rtol=1e-4, atol=1e-6)
    for name, parameter in parameters.items():
        assert parameter.grad is not None
        assert name in names or not parameter.grad.any()
    before = mean_divergence().item()
    with torch.no_grad():
        for name in names:
            parameters[name].sub_(0.1 * parameters[name].grad)  # type: ignore[arg-type]
    assert mean_divergence().item() < before
