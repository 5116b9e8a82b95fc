"""A linear layer with experts: what one gives, and how they come and go."""

from __future__ import annotations

import torch
from torch import nn

from methods.shared.expert_layer import ExpertLayer


def layer() -> ExpertLayer:
    return ExpertLayer(nn.Linear(3, 2, bias=False), rank=1, alpha=4.0, dropout=0.0, kind="test")


def test_an_expert_by_hand() -> None:
    made = layer()
    made.set_experts(1, "name", 0)
    x = torch.tensor([1.0, 2.0, 3.0])
    assert made.expert_output("0", x).tolist() == [0.0, 0.0], "a new expert changes nothing"
    with torch.no_grad():
        made.lora_A["0"].weight.copy_(torch.tensor([[1.0, 0.0, 2.0]]))
        made.lora_B["0"].weight.copy_(torch.tensor([[3.0], [-1.0]]))
    # alpha / r = 4, A x = 7
    assert made.expert_output("0", x).tolist() == [84.0, -28.0]


def test_experts_are_the_same_however_they_come() -> None:
    at_once = layer()
    at_once.set_experts(3, "name", 5)
    one_by_one = layer()
    for count in (1, 2, 3, 2, 3):
        one_by_one.set_experts(count, "name", 5)
        assert list(one_by_one.lora_A) == [str(expert) for expert in range(count)] == list(one_by_one.lora_B)
    drawn = [at_once.lora_A[str(expert)].weight for expert in range(3)]
    for expert, weight in enumerate(drawn):
        assert torch.equal(weight, one_by_one.lora_A[str(expert)].weight)
        assert 0.1 < weight.abs().max() <= 3**-0.5
    assert not torch.equal(drawn[0], drawn[1])
    elsewhere = layer()
    elsewhere.set_experts(1, "another name", 5)
    assert not torch.equal(elsewhere.lora_A["0"].weight, drawn[0])
