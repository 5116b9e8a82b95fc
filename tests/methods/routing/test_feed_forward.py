"""Experts in the place of feed-forward blocks: the layer by hand, what is found in each architecture, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from methods.routing.feed_forward import FeedForwardExperts, replace_feed_forwards
from methods.routing.routed import Routing
from orchestrator.config.experiment import RunConfig
from orchestrator.errors import UserError
from orchestrator.planning.planner import plan
from tests.orchestrator.models.architectures import save_model

SMALL: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
T5: dict[str, Any] = {"d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 2}


def square() -> FeedForwardExperts:
    """f(x) = w x^2 with w = 1, on numbers."""
    block = nn.Bilinear(1, 1, 1, bias=False)
    nn.init.ones_(block.weight)

    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = block

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.inner(x, x)
            return y

    return FeedForwardExperts(Square(), Routing())


def values(layer: FeedForwardExperts) -> list[float]:
    return [weight(layer, expert).item() for expert in range(len(layer.experts))]


def weight(layer: FeedForwardExperts, expert: int) -> nn.Parameter:
    return layer.experts[str(expert)].inner.weight  # type: ignore[union-attr,return-value]


def test_the_layer_by_hand() -> None:
    layer = square()
    x = torch.tensor([[[2.0], [1.0]], [[2.0], [3.0]]])
    layer.routing.set(torch.zeros(2, 0), newest_acts=False)
    assert layer(x).flatten().tolist() == [4.0, 1.0, 4.0, 9.0], "without experts it is the pretrained block"
    layer.set_experts(3)
    layer.routing.gates_BE = None
    assert layer(x).flatten().tolist() == [4.0, 1.0, 4.0, 9.0], "and before a text is read"
    with torch.no_grad():
        for expert, value in enumerate((10.0, 100.0, 1000.0)):
            weight(layer, expert).fill_(value)
    layer.routing.set(torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]]), newest_acts=False)
    # first text: (5 + 50) x^2; second: (25 + 750) x^2
    assert layer(x).flatten().tolist() == [220.0, 55.0, 3100.0, 6975.0]
    layer.routing.set(torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]), newest_acts=False)
    assert layer(x).flatten().tolist() == [400.0, 100.0, 400.0, 900.0]


def test_experts_come_as_copies_and_the_newest_trains() -> None:
    layer = square()
    layer.pretrained.requires_grad_(False)
    layer.set_experts(1)
    with torch.no_grad():
        weight(layer, 0).fill_(7.0)
    layer.set_experts(3)
    assert values(layer) == [7.0, 1.0, 1.0], "a new one is the pretrained block"
    assert [weight(layer, e).requires_grad for e in range(3)] == [False, False, True]
    layer.start_newest_from(0)
    assert values(layer) == [7.0, 1.0, 7.0]
    with torch.no_grad():
        weight(layer, 2).fill_(9.0)
    assert values(layer) == [7.0, 1.0, 9.0], "a copy, not the same weights"
    layer.set_experts(2)
    assert [weight(layer, e).requires_grad for e in range(2)] == [False, True]
    assert len(layer.experts) == 2
    assert not any(p.requires_grad for p in layer.pretrained.parameters())


@pytest.mark.parametrize(
    ("kind", "settings", "blocks", "linears"),
    [
        ("t5", T5, 5, {"wi", "wo"}),
        ("t5", {**T5, "feed_forward_proj": "gated-gelu"}, 5, {"wi_0", "wi_1", "wo"}),
        ("mt5", {**T5, "feed_forward_proj": "gated-gelu"}, 5, {"wi_0", "wi_1", "wo"}),
        ("bert", SMALL, 2, {"intermediate.dense", "dense"}),
        ("roberta", SMALL, 2, {"intermediate.dense", "dense"}),
        ("llama", {**SMALL, "num_key_value_heads": 2}, 2, {"gate_proj", "up_proj", "down_proj"}),
        ("qwen2", {**SMALL, "num_key_value_heads": 2}, 2, {"gate_proj", "up_proj", "down_proj"}),
    ],
)
def test_it_finds_every_block_and_changes_nothing_yet(
    kind: str, settings: dict[str, Any], blocks: int, linears: set[str]
) -> None:
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(kind, vocab_size=20, **settings)).eval()
    inputs = {"input_ids": torch.tensor([[5, 6, 7], [8, 9, 3]])}
    if kind.endswith("t5"):
        inputs["decoder_input_ids"] = torch.tensor([[0, 4], [0, 5]])
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state
    routing = Routing()
    made = replace_feed_forwards(model, routing)

    def states() -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = model(**inputs).last_hidden_state
        return found

    assert torch.equal(states(), expected), "without experts"
    assert len(made) == blocks
    for layer in made.values():
        assert {name for name, m in layer.pretrained.named_modules() if isinstance(m, nn.Linear)} == linears
        layer.set_experts(2)
    routing.set(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), newest_acts=False)
    assert torch.equal(states(), expected), "a new expert is the pretrained block"
    # each block is computed by its experts: the second text's states change with the second expert's weights, and only they
    for layer in made.values():
        before = states()
        with torch.no_grad():
            for parameter in layer.experts["1"].parameters():
                parameter.zero_()
        assert torch.equal(states()[0], expected[0])
        assert not torch.allclose(states()[1], before[1])


@pytest.mark.parametrize(
    ("kind", "settings", "found"),
    [
        ("opt", {"hidden_size": 8, "ffn_dim": 12, "num_hidden_layers": 2, "num_attention_heads": 2}, 0),
        # a mixture of experts, whose shared expert looks like Llama's block
        ("qwen2_moe", {**SMALL, "num_key_value_heads": 2, "num_experts": 2, "num_experts_per_tok": 1}, 0),
        # blocks of both sorts
        ("qwen2_moe", {**SMALL, "num_key_value_heads": 2, "num_experts": 2, "mlp_only_layers": [0]}, 1),
    ],
)
def test_it_refuses_a_model_with_a_block_that_it_does_not_know(kind: str, settings: dict[str, Any], found: int) -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=20, **settings))
    before = list(dict(model.named_parameters()))
    with pytest.raises(ValueError, match=f"of the 2 blocks of this '{kind}' model {found} have one"):
        replace_feed_forwards(model, Routing())
    assert list(dict(model.named_parameters())) == before


def test_it_is_refused_before_anything_starts(tmp_path: Path) -> None:
    config = {
        "name": "refused",
        "model": {"name": save_model(tmp_path / "model", "OPTForCausalLM"), "max_source": 40, "max_target": 6},
        "streams": [{"name": "embedded", "first": 2, "max_train": 8, "max_test": 4}],
        "methods": ["demix"],
        "training": {"lr": 1e-2, "global_batch": 4},
        "out": str(tmp_path),
    }
    with pytest.raises(UserError, match="the feed-forward blocks of T5, BERT, RoBERTa, Llama") as refused:
        plan(RunConfig.model_validate(config))
    assert "\n" not in str(refused.value)
