"""EWC: the Fisher of single examples, the sum of the tasks' penalties, and the online form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from methods import trainable
from methods.regularisation.ewc import Ewc, EwcSettings, fisher_diagonal, joined
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.training.learner import Learner
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import TaskBatches, train_task
from tests.conftest import FAMILIES
from tests.methods import toy


def test_the_fisher_is_the_mean_of_squares_not_the_square_of_the_mean() -> None:
    model = toy.Toy(toy.WEIGHT)
    gradients = torch.stack(toy.gradients(toy.WEIGHT))
    fisher = fisher_diagonal(toy.context(), model, toy.batches(4), None)["weight"]
    toy.assert_close(fisher, (gradients**2).mean(0))
    of_the_batch = gradients.mean(0) ** 2
    assert (fisher > of_the_batch).all()
    assert of_the_batch.sum() / fisher.sum() < 0.3, "the two would be hard to tell apart"


@pytest.mark.parametrize("model", FAMILIES)
def test_the_fisher_of_a_real_model(model: str, learner_of: Callable[..., Learner]) -> None:
    """Against a loop over the examples with the model's own loss and `backward`."""
    learner = learner_of(model=model, methods=["ewc"], stream={"max_train": 12})
    family, module = learner.family, learner.family.module
    train_task(learner, 0, lambda event: None)
    ewc = learner.stack.parts[1][1]
    assert isinstance(ewc, Ewc)
    expected = {n: torch.zeros_like(p) for n, p in trainable(module).items()}
    module.eval()
    for feature in learner.features(0):
        module.zero_grad()
        batch = family.collate([feature])
        if model == "tiny-bert":
            logits = module(input_ids=batch.source.ids, attention_mask=batch.source.mask).logits
            loss = torch.nn.functional.cross_entropy(logits[:, : family.num_labels_seen], batch.labels)
        else:
            answer = (batch.labels != -100).sum()
            loss = (
                module(input_ids=batch.source.ids, attention_mask=batch.source.mask, labels=batch.labels).loss * answer
            )
        loss.backward()
        for n, p in trainable(module).items():
            expected[n] += p.grad**2 / 12
    largest = max(e.max() for e in expected.values())
    for n, e in expected.items():
        torch.testing.assert_close(ewc.fisher[n], e, rtol=1e-4, atol=float(largest) * 1e-6)
    assert all(torch.equal(ewc.anchor[n], p) for n, p in trainable(module).items())


def test_joined_quadratics_are_the_two_but_for_a_constant() -> None:
    fisher_a, a = torch.tensor([2.0, 0.0, 1.0, 0.0]), torch.tensor([1.0, 5.0, 3.0, 7.0])
    fisher_b, b = torch.tensor([6.0, 3.0, 0.0, 0.0]), torch.tensor([5.0, 2.0, 9.0, 8.0])
    fisher, anchor = joined(fisher_a, a, fisher_b, b)
    assert fisher.tolist() == [8.0, 3.0, 1.0, 0.0]
    assert anchor.tolist()[:3] == [4.0, 2.0, 3.0]  # (2 * 1 + 6 * 5) / 8; and where only one holds, its anchor
    for x in (torch.tensor([0.3, -1.0, 2.0, 4.0]), torch.tensor([11.0, 0.0, -5.0, 1.0])):
        gradient = 2 * fisher_a * (x - a) + 2 * fisher_b * (x - b)
        torch.testing.assert_close(2 * fisher * (x - anchor), gradient)


def penalties(gamma: float | None) -> Iterator[tuple[Ewc, list[Tensor], list[Tensor]]]:
    """After each of three tasks that only move the weights: the method, and every task's Fisher and weights."""
    ewc = Ewc(EwcSettings(strength=3.0, gamma=gamma, samples=None), toy.context())
    model = toy.Toy(toy.WEIGHT)
    fishers: list[Tensor] = []
    anchors: list[Tensor] = []
    for task in range(3):
        ewc.before_task(model, task, toy.batches())
        with torch.no_grad():
            model.weight += torch.tensor([[0.5, -0.3], [0.2, 0.7], [-0.4, 0.1]]) * (task + 1)
        ewc.after_task(model, task, toy.batches())
        fishers.append((torch.stack(toy.gradients(model.weight.detach())) ** 2).mean(0))
        anchors.append(model.weight.detach().clone())
        yield ewc, fishers, anchors


def gradient_of_the_penalty(ewc: Ewc, at: Tensor, shares: list[float]) -> Tensor:
    return toy.gradient_of_the_penalty(ewc, toy.Toy(at), shares)


def test_the_penalty_is_the_sum_over_the_tasks_counted_once_a_step() -> None:
    at = torch.tensor([[0.9, 0.1], [-0.6, 0.2], [0.3, -0.8]]).double()
    for ewc, fishers, anchors in penalties(None):
        expected = 3.0 * sum(f * (at - a) for f, a in zip(fishers, anchors, strict=True))
        toy.assert_close(gradient_of_the_penalty(ewc, at, [0.25, 0.75]), expected)


def test_online_the_old_fisher_fades_and_the_anchor_is_the_newest() -> None:
    at = torch.tensor([[0.9, 0.1], [-0.6, 0.2], [0.3, -0.8]]).double()
    *_, (ewc, fishers, anchors) = penalties(0.5)
    fisher = 0.25 * fishers[0] + 0.5 * fishers[1] + fishers[2]
    toy.assert_close(gradient_of_the_penalty(ewc, at, [1.0]), 3.0 * fisher * (at - anchors[2]))


def test_all_strengths_share_the_first_task(sequence_of: Callable[..., SequencePlan]) -> None:
    def keys(**settings: Any) -> tuple[str, ...]:
        return sequence_of(methods=[{"tuning": "full", "plugins": [{"name": "ewc", **settings}]}]).keys

    assert keys()[1] == keys(strength=5.0)[1] == keys(gamma=0.9)[1]
    assert keys()[1] != keys(samples=5)[1]
    assert keys()[1] != sequence_of().keys[1], "plain fine-tuning's checkpoint has no Fisher"
    assert len({keys()[2], keys(strength=5.0)[2], keys(gamma=0.9)[2]}) == 3


def test_a_stream_that_grows_uses_the_old_fisher(sequence_of: Callable[..., SequencePlan]) -> None:
    """The classifier of the longer stream has more rows; its first tasks are those of the shorter one."""
    ewc = {"tuning": "full", "plugins": [{"name": "ewc", "strength": 1e4}]}
    tasks = {"model": "tiny-bert", "methods": [ewc], "stream": {"max_train": 16}}
    longer = sequence_of("one", **tasks)
    run_sequence(longer, evaluate=False)
    whole = Store(Path(longer.out)).load(longer.keys[3])
    store = Store(Path(longer.out))
    first = store.load(longer.keys[1])
    rows = first.method["0:ewc"]["fisher"]["classifier.weight"]
    used = int(rows.any(dim=1).sum())
    assert 0 < used < len(rows)
    cut = dict(first.method["0:ewc"])
    for part in ("fisher", "anchor"):
        cut[part] = {n: t[:used] if n.startswith("classifier") else t for n, t in cut[part].items()}
    again = sequence_of("two", **tasks)
    weights = {n: w[:used] if n.startswith("classifier") else w for n, w in first.weights.items()}
    short = type(first)(weights, {"0:ewc": cut}, first.history)
    Store(Path(again.out)).save(again.keys[1], short, {})
    run_sequence(again, evaluate=False)
    found = Store(Path(again.out)).load(again.keys[3])
    for n, w in whole.weights.items():
        assert torch.equal(w, found.weights[n]), n


def test_samples_caps_the_examples(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(methods=["ewc"], stream={"max_train": 12})
    module = learner.family.module
    batches = TaskBatches(learner, learner.features(0), 0)
    seen: list[int] = []
    context = learner.stack.parts[1][1].context

    def counted(model: Any, batch: Any) -> Any:
        seen.append(len(batch.example_indices))
        return learner.forward(model, batch)

    fisher_diagonal(type(context)(0, context.mean_over_workers, counted), module, batches, 5)
    assert seen == [1] * 5
