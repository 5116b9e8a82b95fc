"""Adapters that a text chooses among: the layer by hand, what trains, and whose gates hold while an answer is generated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods import trainable
from methods.adapters.lora import LoraSettings
from methods.routing.epi import Epi
from methods.routing.routed import RoutedAdapters, RoutedLayer, Routing
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES

ROUTED = ("epi", "mocl", "sapt", "dynamic_conpet")


def test_the_layer_by_hand() -> None:
    routing = Routing()
    base = nn.Linear(2, 1, bias=False)
    layer = RoutedLayer(base, LoraSettings(r=1, alpha=2.0, dropout=0.0), "test", routing)
    layer.set_experts(2, "name", 0)
    x = torch.tensor([[[1.0, 2.0], [0.0, 1.0]], [[1.0, 2.0], [3.0, 0.0]]])
    with torch.no_grad():
        base.weight.fill_(1.0)
        for expert, (a, b) in enumerate([((1.0, 0.0), 3.0), ((0.0, 1.0), 5.0)]):
            layer.lora_A[str(expert)].weight.copy_(torch.tensor([a]))
            layer.lora_B[str(expert)].weight.fill_(b)
    assert layer(x).flatten().tolist() == [3.0, 1.0, 3.0, 3.0], "without gates it is the base layer"
    routing.set(torch.tensor([[0.5, 0.0], [1.0, -1.0]]), newest_acts=False)
    # first text: x1 + x2 + 0.5 · 2 · 3 x1; second: x1 + x2 + 2 · 3 x1 - 2 · 5 x2
    assert layer(x).flatten().tolist() == [6.0, 1.0, -11.0, 21.0]
    with routing.off():
        assert layer(x).flatten().tolist() == [3.0, 1.0, 3.0, 3.0]


def test_an_adapter_without_weight_is_not_computed_but_the_one_that_trains_is() -> None:
    routing = Routing()
    gates = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.5, 0.0]])
    routing.set(gates, newest_acts=False)
    assert routing.acting == [1]
    routing.set(gates, newest_acts=True)
    assert routing.acting == [1, 2]
    routing.set(gates[:, :2], newest_acts=True)
    assert routing.acting == [1]


@pytest.mark.parametrize("name", ROUTED)
def test_only_the_newest_adapter_and_the_router_train(name: str, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(methods=[{"tuning": {"name": name, "r": 2}}], stream={"max_train": 16})
    before: dict[str, Tensor] = {}
    for task in range(2):
        train_task(learner, task, lambda event: None)
        names = trainable(learner.family.module).keys()
        adapters = {n.rsplit(".", 2)[-2] for n in names if ".lora_" in n}
        assert adapters == {str(task)}
        assert not [n for n in names if ".lora_" not in n and not n.startswith("adapter_router.")]
        after = {n: w.detach().clone() for n, w in learner.weights().items()}
        for n, w in before.items():
            trained = n.startswith("adapter_router.") and n not in ("adapter_router.vectors.0", "adapter_router.keys.0")
            assert torch.equal(w, after[n]) != trained, n
        before = after
    assert any(".lora_B.0." in n for n in before), "a checkpoint holds the earlier adapters too"


class ByFirstToken(Epi):
    """Chooses by the text's first token, which a test can see: the first adapter where its number is even."""

    def gates(self, embeds: Tensor, mask: Tensor, training: bool) -> Tensor:
        distances = torch.cdist(embeds[:, :1].float(), self.reader.embeddings.weight[None].float())[:, 0]
        first = distances.argmin(1)
        self.seen.append(len(first))
        return torch.nn.functional.one_hot(first % 2, 2).to(embeds.dtype)

    seen: list[int]


@pytest.mark.parametrize("model", FAMILIES)
def test_each_text_of_a_batch_is_answered_by_its_own_adapter(model: str, learner_of: Callable[..., Learner]) -> None:
    """Answers of a batch whose texts go to two adapters equal those of each text alone, and differ between adapters."""
    learner = learner_of(model=model, methods=[{"tuning": {"name": "epi", "r": 4}}], stream={"max_train": 8})
    tuning = learner.stack.tuning
    assert isinstance(tuning, RoutedAdapters)
    learner.stack.grow(learner.family.module, 2)
    tuning.__class__ = ByFirstToken
    tuning.seen = []
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in tuning.layers:
            for up in layer.lora_B.values():
                up.weight.copy_(torch.randn(up.weight.shape, generator=rng))
    module = learner.family.module.eval()
    ids = torch.tensor([[12, 5, 6, 7], [13, 5, 6, 7]])

    def outputs(rows: Tensor) -> Any:
        with torch.no_grad():
            if learner.family.generates:
                found = module.generate(
                    input_ids=rows, attention_mask=torch.ones_like(rows), max_new_tokens=3, do_sample=False,
                    return_dict_in_generate=True, output_logits=True,
                )  # fmt: skip
                return torch.stack(found.logits, 1)
            return module(input_ids=rows, attention_mask=torch.ones_like(rows)).logits

    together = outputs(ids)
    assert tuning.seen == [2], "the gates are computed once for a text, not again for each token of its answer"
    for i in range(2):
        torch.testing.assert_close(together[i : i + 1], outputs(ids[i : i + 1]), rtol=1e-4, atol=1e-4)
    with tuning.routing.off():
        bare = outputs(ids)
    assert not torch.allclose(together, bare, atol=1e-2)


def test_the_query_of_a_text_does_not_see_its_answer(learner_of: Callable[..., Learner]) -> None:
    """A decoder reads text and answer together while it trains; its query is the text's alone, as when it answers."""
    learner = learner_of(model="tiny-llama", methods=[{"tuning": {"name": "mocl", "r": 2}}], stream={"max_train": 8})
    tuning = learner.stack.tuning
    assert isinstance(tuning, RoutedAdapters)
    learner.stack.grow(learner.family.module, 1)
    seen = []
    mean_states = tuning.mean_states
    tuning.mean_states = lambda embeds, mask: seen.append(mean_states(embeds, mask)) or seen[-1]  # type: ignore[func-returns-value,method-assign]
    batch = learner.family.collate(learner.features(0)[:4])
    assert batch.answer_in_source
    learner.family.module.train()
    tuning.on_batch(batch)
    learner.forward(learner.family.module, batch)
    learner.family.module.eval()
    expected = tuning.embed(batch)
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-5)
