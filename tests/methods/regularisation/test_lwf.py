"""LwF: the distillation term by hand, and on each family against a deep copy of the model as the teacher."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch

from methods import trainable
from methods.regularisation.lwf import Lwf, LwfSettings, distillation
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.training.learner import Learner
from orchestrator.training.task import TaskBatches, train_task
from tests.conftest import FAMILIES
from tests.methods import toy


def test_distillation_by_hand() -> None:
    old, new = [[2.0, 0.0, -1.0], [0.5, 0.5, 0.0]], [[0.0, 1.0, 0.0], [3.0, -1.0, 0.5]]
    total = 0.0
    for a, b in zip(old, new, strict=True):
        p, q = ([math.exp(v / 2) / sum(math.exp(w / 2) for w in row) for v in row] for row in (a, b))
        total += sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
    assert distillation(torch.tensor(old), torch.tensor(new), 2.0).item() == pytest.approx(4 * total, rel=1e-5)
    assert distillation(torch.tensor(old), torch.tensor(old), 2.0).abs() < 1e-6


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("model", FAMILIES)
def test_the_teacher_is_the_model_before_the_task(model: str, tuning: str, learner_of: Callable[..., Learner]) -> None:
    plugin = {"name": "lwf", "strength": 0.7, "temperature": 3.0}
    learner = learner_of(model=model, methods=[{"tuning": tuning, "plugins": [plugin]}])
    train_task(learner, 0, lambda event: None)
    family, module = learner.family, learner.family.module
    lwf = learner.stack.parts[1][1]
    assert isinstance(lwf, Lwf)
    old_labels, labels = (len(learner.stream.labels_until(t)) for t in (1, 2))
    family.at_task(old_labels, labels)
    teacher = copy.deepcopy(module).eval()
    lwf.before_task(module, 1, [])
    with torch.no_grad():
        for p in trainable(module).values():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    module.eval()
    batch = next(iter(TaskBatches(learner, learner.features(1), 1)))
    batch = batch.replace(loss_denominator=11, num_old_classes=family.num_old_classes)
    summed, logits = learner.forward(module, batch)
    loss = lwf.after_forward(module, batch, logits, summed / 11)
    expected = summed / 11
    labels_BT = batch.labels
    inputs = {"input_ids": batch.source.ids, "attention_mask": batch.source.mask}
    if batch.target is not None:
        inputs["decoder_input_ids"] = batch.target.ids
    with torch.no_grad():
        old = teacher(**inputs).logits
    new = module(**inputs).logits
    for b in range(len(labels_BT)):
        if model == "tiny-bert":
            assert logits.shape[1] == labels > old_labels
            rows = [(old[b, :old_labels], new[b, :old_labels])]
        else:
            shift = 1 if model == "tiny-llama" else 0
            where = [t - shift for t in range(labels_BT.shape[1]) if labels_BT[b, t] != -100]
            rows = [(old[b, t], new[b, t]) for t in where]
        for a, c in rows:
            p, log_q = torch.softmax(a / 3, 0), torch.log_softmax(c / 3, 0)
            expected = expected + 0.7 * 9 * (p * (p.log() - log_q)).sum() / 11
    torch.testing.assert_close(loss, expected)
    assert loss > summed / 11
    gradients = torch.autograd.grad(loss, list(trainable(module).values()), allow_unused=True)
    assert any(g is not None and g.abs().sum() > 0 for g in gradients)


def test_the_first_task_is_plain_and_shared(sequence_of: Callable[..., SequencePlan]) -> None:
    assert Lwf(LwfSettings(), toy.context()).cache_fields(0) is None
    assert sequence_of(methods=["lwf"]).keys[1] == sequence_of(methods=["ft"]).keys[1]


def test_the_teacher_does_not_drop_out_nor_train(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(methods=["lwf"], overrides={"dropout_rate": 0.5})
    family, module = learner.family, learner.family.module
    family.at_task(0, 3)
    lwf = learner.stack.parts[1][1]
    assert isinstance(lwf, Lwf)
    lwf.before_task(module, 1, [])
    batch = next(iter(TaskBatches(learner, learner.features(1), 1)))
    first, second = lwf._old_logits(module, batch), lwf._old_logits(module, batch)
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert module.training
