"""A-GEM: the projection by hand, on a toy and on each family, for any number of workers; draws from the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from methods import Batch, Context, method_spec, trainable
from methods.base import Example
from methods.replay.agem import Agem, AgemSettings, shortfall
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES
from tests.methods import toy, workers
from tests.methods.reference import GlobalBatch, mean_loss


def test_the_shortfall_is_over_all_tensors_together() -> None:
    g = {"a": torch.tensor([3.0, -1.0]), "b": torch.tensor([[2.0]])}
    r = {"a": torch.tensor([-1.0, 1.0]), "b": torch.tensor([[1.0]])}  # g . r = -4 + 2, r . r = 3
    assert shortfall(g, r, 0.0) == pytest.approx(2 / 3)
    assert shortfall(g, r, 0.5) == pytest.approx(0.5 + 2 / 3)
    r["b"] = torch.tensor([[4.0]])  # now b outweighs what a alone would ask for: g . r = 4, r . r = 18
    assert shortfall(g, r, 0.0) == 0.0
    assert shortfall(g, r, 4 / 18 - 1e-3) == 0.0
    assert shortfall(g, r, 1.0) == pytest.approx(1 - 4 / 18)
    assert shortfall({"a": None, "b": g["b"]}, r, 1.0) == pytest.approx(1 - 8 / 18)
    assert shortfall(g, {name: 0 * x for name, x in r.items()}, 1.0) == 0.0


def projected(context: Context, gradient: Tensor | None, **settings: Any) -> tuple[Tensor | None, Agem]:
    """The toy's gradient after one step of a second task whose memory is the whole first one."""
    agem = Agem(AgemSettings(**{"fraction": 1.0, **settings}), context)
    model = toy.Toy(toy.WEIGHT)
    agem.before_task(model, 1, [])
    model.weight.grad = None if gradient is None else gradient.clone()
    agem.before_optimizer_step(model)
    assert model.training
    return model.weight.grad, agem


REFERENCE = sum(toy.gradients(toy.WEIGHT), torch.zeros(3, 2).double()) / 4
AGAINST = torch.tensor([[1.0, 0.5], [-0.25, 0.0], [2.0, -1.0]]).double()


@pytest.mark.parametrize(("count", "size"), [(1, 1), (1, 4), (2, 1), (2, 2), (2, 4), (3, 2)])
def test_a_conflicting_gradient_is_projected(count: int, size: int) -> None:
    """For micro-batches that leave workers without any, too."""
    dot, square = (float((x * REFERENCE).sum()) for x in (AGAINST, REFERENCE))
    sign = -1.0 if dot > 0 else 1.0
    gradient = sign * AGAINST
    expected = gradient - sign * dot / square * REFERENCE
    assert (expected - gradient).norm() > 0.1
    for found, agem in workers.together(count, lambda context: projected(context, gradient), size):
        assert found is not None
        toy.assert_close(found, expected, rtol=1e-5)  # the toy's own are exponentials in float32
        assert float((found * REFERENCE).sum()) == pytest.approx(0, abs=1e-6)
        assert agem.diagnostics() == {"projected_share": 1.0}


def test_an_agreeing_gradient_stays_as_it_is() -> None:
    found, agem = projected(workers.context(), 0.3 * REFERENCE)
    assert found is not None
    assert torch.equal(found, 0.3 * REFERENCE)
    assert agem.diagnostics() == {"projected_share": 0.0}


def test_with_a_margin_the_old_descent_is_what_it_asks_for() -> None:
    found, _ = projected(workers.context(), 0.3 * REFERENCE, margin=0.75)
    assert found is not None
    toy.assert_close(found, 0.75 * REFERENCE)
    missing, _ = projected(workers.context(), None, margin=0.75)
    assert missing is not None
    toy.assert_close(missing, 0.75 * REFERENCE)
    untouched, _ = projected(workers.context(), None)
    assert untouched is None


def test_the_share_counts_the_tasks_own_steps() -> None:
    agem = Agem(AgemSettings(fraction=1.0), workers.context())
    model = toy.Toy(toy.WEIGHT)
    for task, signs in ((0, (1,)), (1, (1, -1, 1, 1)), (2, (-1, 1))):
        agem.before_task(model, task, [])
        for sign in signs:
            model.weight.grad = sign * REFERENCE
            agem.before_optimizer_step(model)
        expected = {0: {}, 1: {"projected_share": 0.25}, 2: {"projected_share": 0.5}}[task]
        assert agem.diagnostics() == expected
    assert agem.state_dict() == {}


def drawn(task_id: int, steps: int, **settings: Any) -> list[list[tuple[int, int]]]:
    """The (task, row) of what each step looks at."""
    seen: list[list[tuple[int, int]]] = []

    def note(examples: Sequence[Example]) -> Iterator[Batch]:
        seen.append([(e["task"], e["row"]) for e in examples])
        return workers.batches()(examples)

    agem = Agem(AgemSettings(**settings), workers.context(batches=note))
    model = toy.Toy(toy.WEIGHT)
    agem.before_task(model, task_id, [])
    for _ in range(steps):
        agem.before_optimizer_step(model)
    return seen


def test_each_step_draws_anew_from_all_earlier_tasks_together() -> None:
    memory = {(0, row) for row in range(4)} | {(1, row) for row in range(3)}
    seen = drawn(2, 200, fraction=1.0, examples=3)
    assert all(len(set(step)) == 3 for step in seen), "none twice"
    assert {example for step in seen for example in step} == memory
    share = sum(example[0] == 0 for step in seen for example in step) / 600
    assert abs(share - 4 / 7) < 0.06, "by size, unlike tasks alike"
    assert seen == drawn(2, 200, fraction=1.0, examples=3)
    assert len({tuple(step) for step in seen}) > 50
    assert all(set(step) == memory for step in drawn(2, 2, fraction=1.0, examples=64)), "all, but none twice"
    assert {len(step) for step in drawn(2, 5, fraction=0.3)} == {3}  # 2 of 4 and 1 of 3
    assert drawn(0, 2, fraction=1.0) == drawn(2, 2, fraction=0.0) == []


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("model", FAMILIES)
def test_on_each_family(model: str, tuning: str, learner_of: Callable[..., Learner]) -> None:
    """Against the model's own loss on the first task's examples as one batch."""
    plugin = {"name": "agem", "fraction": 1.0, "examples": 99, "margin": 0.5}
    learner = learner_of(
        model=model,
        methods=[{"tuning": tuning, "plugins": [plugin]}],
        stream={"max_train": 13},
        training={"micro_batch": 2},
    )
    train_task(learner, 0, lambda event: None)
    family, module, agem = learner.family, learner.family.module, learner.stack.parts[1][1]
    labels = [len(learner.stream.labels_until(t)) for t in (1, 2)]
    family.at_task(*labels)
    agem.before_task(module, 1, [])
    rng = torch.Generator().manual_seed(0)
    parameters = list(trainable(module).values())
    before = [torch.randn(p.shape, generator=rng) for p in parameters]
    before[0] = None  # type: ignore[call-overload]
    for p, g in zip(parameters, before, strict=True):
        p.grad = None if g is None else g.clone()
    agem.before_optimizer_step(module)

    module.eval()
    batch = GlobalBatch(family.collate(learner.features(0)), labels[1])
    reference = torch.autograd.grad(mean_loss(module, batch), parameters, allow_unused=True)
    r = torch.cat(
        [torch.zeros(p.numel()) if x is None else x.flatten() for x, p in zip(reference, parameters, strict=True)]
    )
    g = torch.cat(
        [torch.zeros(p.numel()) if x is None else x.flatten() for x, p in zip(before, parameters, strict=True)]
    )
    assert g @ r < 0.5 * (r @ r), "else nothing is proven"
    expected = g + (0.5 - (g @ r) / (r @ r)) * r
    found = torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in parameters])
    assert (expected - g).norm() > 1e-2 * r.norm()
    torch.testing.assert_close(found - g, expected - g, rtol=2e-3, atol=1e-5 * float(r.abs().max()))


def test_the_first_task_is_shared_and_the_passes_are_counted(sequence_of: Callable[..., SequencePlan]) -> None:
    assert sequence_of(methods=["agem"]).keys[1] == sequence_of(methods=["ft"]).keys[1]
    assert sequence_of(methods=["agem"]).keys[2] != sequence_of(methods=["ft"]).keys[2]
    context = toy.context(examples=lambda task: [{}] * 50)
    agem = Agem(AgemSettings(fraction=0.5), context)
    passes = [agem.extra_passes(task, 16) for task in (0, 1, 3)]  # of 0, 25 and 75 kept examples, 64 at most
    assert passes == [(0, 0), (0, 25 / 16), (0, 64 / 16)]
    assert Agem(AgemSettings(fraction=0.0), context).extra_passes(1, 16) == (0, 0)


@pytest.mark.parametrize("wrong", [{"examples": 0}, {"fraction": -0.1}, {"margin": -1.0}, {"samples": 3}])
def test_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        method_spec({"plugins": [{"name": "agem", **wrong}]})


@pytest.mark.parametrize("name", ["agem", "derpp"])
def test_a_tuning_method_that_does_not_follow_the_gradients_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' cannot be combined with 'coso': it moves coordinates of its own"):
        method_spec({"tuning": "coso", "plugins": [name]})
