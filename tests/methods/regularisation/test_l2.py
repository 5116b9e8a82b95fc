"""L2: the penalty by hand, where it acts, and one AdamW step of a real model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from methods import trainable
from methods.regularisation.l2 import L2, L2Settings
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES
from tests.methods import toy


def test_the_penalty_by_hand() -> None:
    l2 = L2(L2Settings(strength=0.5), toy.context())
    model = toy.Toy(torch.tensor([[1.0, 2.0]]))
    l2.before_task(model, 1, [])
    with torch.no_grad():
        model.weight += torch.tensor([[0.5, -1.0]])
    l2.before_step(model, [])
    loss = l2.after_forward(model, toy.batch(loss_weight=0.4), torch.zeros(1), torch.tensor(2.0))
    assert loss.item() == pytest.approx(2.0 + 0.4 * 0.5 / 2 * (0.25 + 1.0))
    toy.assert_close(toy.gradient_of_the_penalty(l2, model, [0.4, 0.6]), 0.5 * torch.tensor([[0.5, -1.0]]))


def test_units_of_labels_to_come_are_not_held() -> None:
    """Three labels, of which the first task had one and the second two."""
    model = toy.Toy(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    l2 = L2(L2Settings(strength=0.5), toy.context(labels=[1, 2, 3], label_units=[model.weight]))
    moved = torch.tensor([[0.5, -1.0], [2.0, 1.0], [3.0, 3.0]])
    for task, squares in ((1, 0.25 + 1.0), (2, 0.25 + 1.0 + 4.0 + 1.0)):
        l2.before_task(model, task, [])
        with torch.no_grad():
            model.weight += moved
        l2.before_step(model, [])
        loss = l2.after_forward(model, toy.batch(), torch.zeros(1), torch.tensor(2.0))
        assert loss.item() == pytest.approx(2.0 + 0.5 / 2 * squares)
        expected = 0.5 * moved
        expected[task:] = 0
        toy.assert_close(toy.gradient_of_the_penalty(l2, model, [1.0]), expected)
        l2.after_task(model, task, [])


HEADS = {"tiny-bert": "classifier", "tiny-roberta": "classifier.out_proj"}


@pytest.mark.parametrize("model", HEADS)
def test_of_a_classifier_the_old_labels_units_are_held(model: str, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model=model, methods=["l2"])
    module = learner.family.module
    (_, l2) = learner.stack.parts[1]
    assert isinstance(l2, L2)
    l2.before_task(module, 1, [])
    num_old = len(learner.stream.labels_until(1))
    for name, p in trainable(module).items():
        held = num_old if name in (f"{HEADS[model]}.weight", f"{HEADS[model]}.bias") else len(p)
        assert torch.equal(l2.anchor[name], p[:held]), name
    assert num_old < len(module.get_parameter(f"{HEADS[model]}.weight"))


def test_a_new_expert_is_not_held(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(methods=[{"tuning": "moelora", "plugins": ["l2"]}], stream={"max_train": 8})
    train_task(learner, 0, lambda event: None)
    learner.stack.grow(learner.family.module, 2)
    (_, l2) = learner.stack.parts[1]
    assert isinstance(l2, L2)
    l2.before_task(learner.family.module, 1, [])
    names = set(trainable(learner.family.module))
    new = {name for name in names if name.endswith(".1.weight")}
    assert {name.split(".")[-3] for name in new} == {"lora_A", "lora_B", "router"}
    assert set(l2.anchor) == names - new


def test_the_first_task_is_plain_and_shared(sequence_of: Callable[..., SequencePlan]) -> None:
    assert L2(L2Settings(), toy.context()).cache_fields(0) is None
    assert sequence_of(methods=["l2"]).keys[1] == sequence_of(methods=["ft"]).keys[1]
    assert sequence_of(methods=["l2"]).keys[2] != sequence_of(methods=["ft"]).keys[2]


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("scope", ["all", "attention"])
def test_a_strong_penalty_holds_what_is_in_scope(model: str, scope: str, learner_of: Callable[..., Learner]) -> None:
    """With a huge lambda the held weights swing by Adam's step about the anchor; over many steps the others go further."""

    def moved(strength: float) -> dict[str, float]:
        plugin = {"name": "l2", "strength": strength, "scope": scope}
        learner = learner_of(
            model=model,
            methods=[{"tuning": "full", "plugins": [plugin]}],
            stream={"max_train": 96},
            training={"weight_decay": 0.0},
        )
        train_task(learner, 0, lambda event: None)
        before = {n: p.detach().clone() for n, p in learner.family.module.named_parameters()}
        train_task(learner, 1, lambda event: None)
        return {n: float((p.detach() - before[n]).norm()) for n, p in learner.family.module.named_parameters()}

    free, held = moved(0.0), moved(1e4)
    attention = [n for n in free if "ttn" in n.lower() or "attention" in n.lower()]
    assert 0 < len(attention) < len(free)
    inside = [n for n in free if n.endswith("weight") and (n in attention or scope == "all")]
    total = {k: sum(v[n] for n in inside) for k, v in (("free", free), ("held", held))}
    assert total["held"] < 0.6 * total["free"]


def test_scope_without_attention_is_refused() -> None:
    l2 = L2(L2Settings(scope="attention"), toy.context())
    with pytest.raises(ValueError, match="no trained parameter belongs to an attention block"):
        l2.before_task(toy.Toy(toy.WEIGHT), 1, [])
