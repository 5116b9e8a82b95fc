"""DER++: both terms by hand, what is stored, draws, and the whole gradient on each family."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from methods import Batch, Context, method_spec, trainable
from methods.base import Example
from methods.replay.derpp import Derpp, DerppSettings, logits_of, squared_error
from methods.replay.memory import kept
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES
from tests.methods import toy, workers
from tests.methods.reference import GlobalBatch, mean_loss

NEW = toy.WEIGHT + torch.tensor([[0.5, 0.0], [-0.25, 1.0], [0.0, -0.5]])


def derpp_of(context: Context, **settings: Any) -> Derpp:
    return Derpp(DerppSettings(**{"alpha": 0.3, "beta": 0.5, "fraction": 1.0, **settings}), context)


def test_the_distance_is_over_the_columns_that_there_were() -> None:
    new = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 1.0], [4.0, 4.0, 9.0]])
    old = [torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[3.0, 0.0], [4.0, 2.0]])]
    # (0 + 4 + 9) / 3; (9 + 0) / 2; (0 + 4) / 2
    assert squared_error(new, old).item() == pytest.approx(13 / 3 + 9 / 2 + 2)


def second_task_gradient(context: Context, before: Tensor | None, **settings: Any) -> Tensor | None:
    """The gradient after a step of the second task, whose weights are NEW; those after the first were WEIGHT."""
    first = derpp_of(context, **settings)
    first.after_task(toy.Toy(toy.WEIGHT), 0, [])
    method = derpp_of(context, **settings)
    if first.state_dict():
        method.load_state_dict(first.state_dict())  # as after a stop
    model = toy.Toy(NEW)
    method.before_task(model, 1, [])
    model.weight.grad = None if before is None else before.clone()
    method.before_optimizer_step(model)
    assert model.training
    return model.weight.grad


def by_hand(alpha: float, beta: float) -> Tensor:
    """alpha d/dW mean_NK (W x - W_old x)^2 + beta d/dW mean_N CE."""
    change = (NEW - toy.WEIGHT).double()
    distance = sum((2 / 3 * (change @ x)[:, None] * x[None, :] for x in toy.INPUTS), torch.zeros(3, 2).double()) / 4
    return alpha * distance + beta * sum(toy.gradients(NEW), torch.zeros(3, 2).double()) / 4


@pytest.mark.parametrize(("count", "size"), [(1, 1), (1, 4), (2, 1), (2, 2), (2, 4), (3, 2)])
def test_both_terms_by_hand_once_a_step(count: int, size: int) -> None:
    """Whatever the micro-batches and the workers, some of which have none."""
    before = torch.ones(3, 2).double()
    for found in workers.together(count, lambda context: second_task_gradient(context, before), size):
        assert found is not None
        toy.assert_close(found, before + by_hand(0.3, 0.5))


def test_each_term_alone() -> None:
    for alpha, beta in ((0.3, 0.0), (0.0, 0.5)):
        found = second_task_gradient(workers.context(), None, alpha=alpha, beta=beta)
        assert found is not None
        toy.assert_close(found, by_hand(alpha, beta))
    assert second_task_gradient(workers.context(), None, alpha=0.0, beta=0.0) is None
    assert second_task_gradient(workers.context(), None, fraction=0.0) is None


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_worker_stores_the_same(count: int) -> None:
    """Three examples in micro-batches of two: with three workers, the last has none."""
    model = toy.Toy(toy.WEIGHT)
    for logits, counts in workers.together(count, lambda context: logits_of(context, model, workers.examples(1))):
        toy.assert_close(logits, toy.INPUTS[:3] @ toy.WEIGHT.double().T)
        assert counts == [1, 1, 1]


def test_old_examples_are_compared_over_the_labels_of_their_time() -> None:
    """Two labels until the first task, three until the second."""
    seen = 2

    def forward(model: Callable[..., Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        logits = model(inputs=batch.source.ids)[:, :seen]
        return torch.zeros(()).double(), logits

    method = derpp_of(workers.context(forward=forward), alpha=1.0, beta=0.0)
    method.after_task(toy.Toy(toy.WEIGHT), 0, [])
    seen = 3
    method.after_task(toy.Toy(toy.WEIGHT), 1, [])
    assert [method.logits[t].shape for t in (0, 1)] == [(4, 2), (3, 3)]
    model = toy.Toy(NEW)
    method.before_task(model, 2, [])
    method.before_optimizer_step(model)
    change, expected = (NEW - toy.WEIGHT).double(), torch.zeros(3, 2).double()
    for columns, rows in ((2, 4), (3, 3)):
        for x in toy.INPUTS[:rows]:
            expected[:columns] += 2 / columns / 7 * (change @ x)[:columns, None] * x[None, :]
    assert model.weight.grad is not None
    toy.assert_close(model.weight.grad, expected)


def test_the_two_draws_of_a_step_are_independent_and_seeded() -> None:
    def drawn(seed: int, steps: int = 60, **settings: Any) -> list[list[tuple[int, int]]]:
        seen: list[list[tuple[int, int]]] = []

        def note(examples: Sequence[Example]) -> Iterator[Batch]:
            seen.append([(e["task"], e["row"]) for e in examples])
            return workers.batches()(examples)

        method = derpp_of(workers.context(seed=seed, batches=note), **settings)
        model = toy.Toy(toy.WEIGHT)
        for task in (0, 1):
            method.after_task(model, task, [])
        method.before_task(model, 2, [])
        seen.clear()
        for _ in range(steps):
            method.before_optimizer_step(model)
        return seen

    seen = drawn(0, examples=2)
    logits, answers = seen[::2], seen[1::2]
    assert len(logits) == len(answers) == 60
    memory = {(0, row) for row in range(4)} | {(1, row) for row in range(3)}
    for draws in (logits, answers):
        assert {example for step in draws for example in step} == memory
        assert all(len(set(step)) == 2 for step in draws)
    same = sum(set(a) == set(b) for a, b in zip(logits, answers, strict=True))
    assert same < 15, "1 in 21 by chance"
    assert seen == drawn(0, examples=2) != drawn(1, examples=2)
    assert drawn(0, examples=2, beta=0.0) == logits
    assert drawn(0, examples=2, alpha=0.0) == answers
    assert [len(step) for step in drawn(0, 1, fraction=0.3)] == [3, 3]  # 2 of 4 and 1 of 3: fewer than 32


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("model", FAMILIES)
def test_on_each_family(model: str, tuning: str, learner_of: Callable[..., Learner]) -> None:
    """Logits and gradient against the model's own, on all kept examples as one batch."""
    plugin = {"name": "derpp", "alpha": 0.7, "beta": 0.4, "fraction": 0.5, "examples": 99}
    learner = learner_of(
        model=model,
        methods=[{"tuning": tuning, "plugins": [plugin]}],
        stream={"max_train": 13},
        training={"micro_batch": 2},
    )
    train_task(learner, 0, lambda event: None)
    family, module, derpp = learner.family, learner.family.module, learner.stack.parts[1][1]
    old_labels, labels = (len(learner.stream.labels_until(t)) for t in (1, 2))
    chosen = kept(learner.sequence.seed, 0, learner.features(0), 0.5)
    assert len(chosen) == 7
    batch = family.collate(chosen)
    if model == "tiny-bert":
        asked = torch.ones(7, 1, dtype=torch.bool)
    else:
        asked = batch.labels != -100
        asked = asked[:, 1:] if model == "tiny-llama" else asked

    def logits() -> Tensor:
        if model == "tiny-t5":
            return module(input_ids=batch.source.ids, attention_mask=batch.source.mask, labels=batch.labels).logits[
                asked
            ]
        found = module(input_ids=batch.source.ids, attention_mask=batch.source.mask).logits
        return found[:, :-1][asked] if model == "tiny-llama" else found[:, :old_labels]

    module.eval()
    old = logits().detach()
    state = derpp.state_dict()
    assert set(state) == {"logits", "counts"}
    torch.testing.assert_close(state["logits"]["0"], old)
    assert state["logits"]["0"].dtype == torch.float32
    assert state["counts"]["0"] == asked.sum(1).tolist()

    with torch.no_grad():
        for p in trainable(module).values():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    parameters = list(trainable(module).values())
    loss = 0.7 * F.mse_loss(logits(), old)
    assert loss > 1e-4
    loss = loss + 0.4 * mean_loss(module, GlobalBatch(batch, labels))
    expected = torch.autograd.grad(loss, parameters, allow_unused=True)

    module.train()
    family.at_task(old_labels, labels)
    derpp.before_task(module, 1, [])
    for p in parameters:
        p.grad = None
    derpp.before_optimizer_step(module)
    assert module.training
    for p, g in zip(parameters, expected, strict=True):
        if g is None or not g.any():
            assert p.grad is None
        else:
            torch.testing.assert_close(p.grad, g, rtol=1e-3, atol=1e-5 * float(g.abs().max()) + 1e-7)


def test_the_logits_of_a_sentence_encoder_are_of_the_labels_so_far(learner_of: Callable[..., Learner]) -> None:
    plugin = {"name": "derpp", "fraction": 0.5}
    learner = learner_of(
        model="tiny-bert",
        scoring="similarity",
        methods=[{"tuning": "full", "plugins": [plugin]}],
        stream={"max_train": 8, "first": 3},
    )
    for task in range(2):
        train_task(learner, task, lambda event: None)
    logits = learner.stack.parts[1][1].state_dict()["logits"]
    assert [tuple(logits[str(t)].shape) for t in (0, 1)] == [
        (4, len(learner.stream.labels_until(1))),
        (4, len(learner.stream.labels_until(2))),
    ]


def test_dropout_does_not_reach_the_stored_logits(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(methods=["der++"], overrides={"dropout_rate": 0.5})
    family = learner.family
    family.at_task(0, 3)
    family.module.train()
    first, second = (logits_of(learner.stack.parts[1][1].context, family.module, learner.features(0)) for _ in "ab")
    assert torch.equal(first[0], second[0])
    assert not first[0].requires_grad
    assert family.module.training


def test_what_shares_the_first_task(sequence_of: Callable[..., SequencePlan]) -> None:
    """Its logits are part of the state: alike for every weight of the terms, but not for another memory."""

    def keys(**settings: Any) -> tuple[str, ...]:
        return sequence_of(methods=[{"tuning": "full", "plugins": [{"name": "derpp", **settings}]}]).keys

    plain = sequence_of(methods=["ft"]).keys
    assert keys(alpha=0.1)[1] == keys(alpha=0.2, beta=0.0, examples=4)[1] != plain[1]
    assert keys(alpha=0.1)[2] != keys(alpha=0.2)[2]
    assert keys(fraction=0.1)[1] != keys()[1]
    assert keys(alpha=0.0)[1] == keys(fraction=0.0)[1] == plain[1]
    assert keys(alpha=0.0)[2] != plain[2]
    assert derpp_of(workers.context(), alpha=0.0).cache_fields(0) is None
    without = derpp_of(workers.context(), alpha=0.0)
    without.after_task(toy.Toy(toy.WEIGHT), 0, [])
    assert without.state_dict() == {}


def test_the_passes_are_counted() -> None:
    context = toy.context(examples=lambda task: [{}] * 1000)
    few = {"fraction": 0.02, "examples": 32}
    changes: list[dict[str, float]] = [{}, {"alpha": 0.0}, {"fraction": 0.0}]
    passes = [derpp_of(context, **{**few, **c}).extra_passes(1, 16) for c in changes]
    assert passes == [(0, 2 * 20 / 16), (0, 20 / 16), (0, 0)]  # over the 20 that are kept, for each term
    assert derpp_of(context, **few).extra_passes(2, 16) == (0, 2 * 32 / 16)
    assert derpp_of(context, **few).extra_passes(0, 16) == (0, 0)


@pytest.mark.parametrize("wrong", [{"alpha": -0.1}, {"beta": float("nan")}, {"fraction": 2.0}, {"examples": 0}])
def test_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        method_spec({"plugins": [{"name": "derpp", **wrong}]})
