"""L2P: matching by hand, and a task of it against a second implementation that reads one example at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from methods import method_spec, trainable
from methods.prompts.l2p import L2P, nearest_keys
from methods.shared.reader import mean_over_tokens
from orchestrator.evaluation.scores import score_task
from orchestrator.models.family import Family
from orchestrator.training.batches import global_batches
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES
from tests.methods.reference import Adam, assert_near


def test_matching_by_hand() -> None:
    keys = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    values, index = nearest_keys(torch.tensor([[3.0, 4.0]]), keys, 2)
    assert index.tolist() == [[1, 0]]
    torch.testing.assert_close(values, torch.tensor([[0.8, 0.6]]))
    assert nearest_keys(torch.tensor([[3.0, 4.0]]), keys, 9)[1].tolist() == [[1, 0, 2]]
    states = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]])
    assert mean_over_tokens(states, torch.tensor([[1, 1, 0]])).tolist() == [[2.0, 3.0]]


def test_cosines_are_not_rounded_by_autocast() -> None:
    """The second key is nearer by 1e-5, which bfloat16 cannot tell; and its cosine is given in full."""
    keys = torch.tensor([[1.0, 0.031], [1.0, 0.030]])
    query = torch.tensor([[1.0, 0.0300]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values, index = nearest_keys(query, keys, 2)
    assert index.tolist() == [[1, 0]]
    exact = 1 - 0.001**2 / 2 / (1 + 0.03**2) ** 2
    torch.testing.assert_close(values, torch.tensor([[1.0, exact]]), rtol=0, atol=2e-7)


def one_by_one(plain: nn.Module, family: Family, feature: dict, prompt: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """(summed loss, summed distance to the picked keys) of one example: no padding, no masks."""
    source, kind = torch.tensor([feature["source"]]), family.source.kind
    table = plain.get_input_embeddings()
    with torch.no_grad():
        reader = plain.get_encoder() if kind == "encoder-decoder" else plain.base_model
        query = reader(input_ids=source).last_hidden_state[0].mean(0)
    cosines = torch.stack([torch.dot(query, k) / query.norm() / k.norm() for k in key])
    best = sorted(range(len(key)), key=lambda m: -cosines[m].item())[:2]
    vectors = torch.cat([prompt[m] for m in best])
    distance = sum(1 - cosines[m] for m in best)
    if kind == "encoder":
        tokens = table(source)[0]
        logits = plain(inputs_embeds=torch.cat([tokens[:1], vectors, tokens[1:]])[None]).logits[
            :, : family.num_labels_seen
        ]
        return nn.functional.cross_entropy(logits, torch.tensor([feature["class_index"]])), distance
    target = feature["target"]
    if kind == "encoder-decoder":
        inputs = torch.cat([vectors, table(source)[0]])[None]
        loss = plain(inputs_embeds=inputs, labels=torch.tensor([target])).loss
    else:
        inputs = torch.cat([vectors, table(source)[0], table(torch.tensor(target))])[None]
        labels = torch.tensor([[-100] * (len(vectors) + source.shape[1]) + target])
        loss = plain(inputs_embeds=inputs, labels=labels).loss
    return loss * len(target), distance


@pytest.mark.parametrize("model", FAMILIES)
def test_a_task_equals_a_second_implementation(model: str, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(
        model=model,
        methods=[{"tuning": {"name": "l2p", "pool": 5, "picked": 2, "tokens": 3, "pull": 0.3}}],
        stream={"max_train": 24},
        training={"micro_batch": 4, "lr": 1e-2},
    )
    family, tuning = learner.family, learner.stack.tuning
    assert isinstance(tuning, L2P)
    module = family.module.double()
    plain = copy.deepcopy(module).train()
    for part in plain.modules():
        part._forward_pre_hooks.clear()
        part._forward_hooks.clear()
    family.num_labels_seen = len(learner.stream.labels_until(1))
    heads = [p for n, p in plain.named_parameters() if "classifier" in n]
    prompt, key = (p.detach().clone().requires_grad_() for p in (tuning.pool.prompt, tuning.pool.key))
    start = prompt.detach().clone()
    adam = Adam([prompt, key, *heads], 1e-2)
    features = learner.features(0)
    torch.set_default_dtype(torch.float64)
    try:
        for chosen in global_batches(len(features), 8, 7, 0, 0):
            batch = [features[i] for i in chosen]
            total = sum(family.loss_terms(f) for f in batch)
            loss = torch.zeros(())
            for feature in batch:
                summed, distance = one_by_one(plain, family, feature, prompt, key)
                loss = loss + summed / total + 0.3 * distance * family.loss_terms(feature) / total
            adam.step(torch.autograd.grad(loss, [prompt, key, *heads]), decayed=0)
        train_task(learner, 0, lambda event: None)
    finally:
        torch.set_default_dtype(torch.float32)
    assert (tuning.pool.prompt != start).any()
    assert_near(tuning.pool.prompt, prompt, "prompts")
    assert_near(tuning.pool.key, key, "keys")
    for name, p in zip(["weight", "bias"], heads, strict=False):
        assert_near(module.get_parameter(f"classifier.{name}"), p, name)


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("query", ["states", "embeddings"])
def test_scores_do_not_depend_on_the_batch(query: str, model: str, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model=model, methods=[{"tuning": {"name": "l2p", "query": query}}], training={"lr": 0.1})
    train_task(learner, 0, lambda event: None)
    names = {n for n in trainable(learner.family.module) if "classifier" not in n}
    assert names == {"soft_prompts.prompt", "soft_prompts.key"}
    scores = [score_task(learner.scored_model(), learner.stream.tasks[0], "test", b) for b in (1, 3, 10)]
    assert scores[0] == scores[1] == scores[2]


def test_a_sentence_encoder_trains_too(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model="tiny-bert", scoring="similarity", methods=["l2p"])
    before = {n: p.detach().clone() for n, p in trainable(learner.family.module).items()}
    train_task(learner, 0, lambda event: None)
    assert all(not torch.equal(p, before[n]) for n, p in trainable(learner.family.module).items())


def test_migu_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="'migu' cannot be combined with 'l2p': it trains no linear layer"):
        method_spec({"tuning": "l2p", "plugins": ["migu"]})
