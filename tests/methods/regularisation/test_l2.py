"""L2: the penalty by hand, where it acts, and one AdamW step of a real model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

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
    loss = l2.after_forward(model, toy.batch(loss_weight=0.4), torch.zeros(1), torch.tensor(2.0))
    assert loss.item() == pytest.approx(2.0 + 0.4 * 0.5 / 2 * (0.25 + 1.0))
    (gradient,) = torch.autograd.grad(loss, [model.weight])
    toy.assert_close(gradient, 0.4 * 0.5 * torch.tensor([[0.5, -1.0]]))


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
