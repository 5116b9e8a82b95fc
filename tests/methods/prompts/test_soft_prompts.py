"""Soft prompts inside real models: what they compute is what the model computes on longer input embeddings."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from methods.prompts.soft_prompts import PromptedModel, example_loss_weights, random_token_embeddings
from orchestrator.config.model import ModelConfig
from orchestrator.models.families import load_family
from orchestrator.models.family import Family
from orchestrator.models.source import find_model
from streams import Limits, named_stream
from tests.conftest import SMALL
from tests.methods import toy

VECTORS = torch.randn(3, 32, generator=torch.Generator().manual_seed(5))


def family_of(model: str, scoring: str = "auto") -> Family:
    stream = named_stream("embedded", Limits(max_train=8, max_test=10))
    config = ModelConfig(name=model, overrides=SMALL[model], max_source=48, scoring=scoring)
    family = load_family(find_model(config), config, stream.labels_until(5), seed=1)
    family.module.eval()
    with torch.no_grad():
        for p in family.module.parameters():
            p.mul_(3 if p.ndim > 1 else 1)  # as they are, all examples get the same answer
    return family


def features(family: Family, count: int = 4) -> list[dict[str, list[int]]]:
    task = named_stream("embedded", Limits(max_train=8, max_test=10)).tasks[1]
    return family.features(task, task.read("test"))[:count]


def among(plain: torch.nn.Module, ids: list[int], start: int) -> Tensor:
    """[1, 3 + S, d]: one example's embeddings with the prompt among them."""
    tokens = plain.get_input_embeddings()(torch.tensor(ids))
    return torch.cat([tokens[:start], VECTORS, tokens[start:]])[None]


def prompted(embeds: Tensor, mask: Tensor) -> Tensor:
    return VECTORS.expand(len(embeds), -1, -1)


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-bert", "tiny-roberta", "tiny-llama"])
@torch.no_grad()
def test_a_forward_pass_equals_longer_embeddings(model: str) -> None:
    family = family_of(model)
    plain = copy.deepcopy(family.module)
    PromptedModel(family.module, prompted)
    chosen = features(family)
    batch = family.collate(chosen)
    _, logits = family.forward(family.module, batch)
    if family.generates:
        logits = logits.split(batch.answers_by_example())  # type: ignore[assignment]
    for i, feature in enumerate(chosen):  # one by one, without padding
        if family.source.kind == "encoder-decoder":
            labels = torch.tensor([feature["target"]])
            expected = plain(inputs_embeds=among(plain, feature["source"], 0), labels=labels).logits[0]
            found = logits[i]
        elif family.source.kind == "decoder":
            ids = feature["source"] + feature["target"]
            # the prompt's three vectors come first, and each logits ask for the token after theirs
            first = 3 + len(feature["source"]) - 1
            expected = plain(inputs_embeds=among(plain, ids, 0)).logits[0, first:-1]
            found = logits[i]
        else:
            expected = plain(inputs_embeds=among(plain, feature["source"], 1)).logits[0]
            found = logits[i]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        bare = plain(input_ids=batch.source.ids[i : i + 1], attention_mask=batch.source.mask[i : i + 1],
                     **({"labels": batch.labels[i : i + 1]} if family.generates else {})).logits  # fmt: skip
        if family.source.kind == "decoder":
            bare = bare[:, len(feature["source"]) - 1 :]
        assert not torch.allclose(bare[0, : len(found)] if family.generates else bare[0], found, atol=1e-3)


@torch.no_grad()
def test_a_sentence_encoder_pools_the_tokens_alone() -> None:
    family = family_of("tiny-bert", "similarity")
    encoder = copy.deepcopy(family.module.encoder)
    PromptedModel(family.module, prompted)
    chosen = features(family)
    logits = family.all_logits(chosen, torch.device("cpu"))

    def vector(ids: list[int]) -> Tensor:
        states = encoder(inputs_embeds=among(encoder, ids, 1)).last_hidden_state[0]
        pooled = torch.cat([states[:1], states[4:]]).mean(0)
        return pooled / pooled.norm()

    for i, feature in enumerate(chosen):
        for k, option in enumerate(family.option_ids):
            expected = 20 * torch.dot(vector(feature["source"]), vector(option))
            torch.testing.assert_close(logits[i, k], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-llama"])
@torch.no_grad()
def test_generation_equals_a_whole_pass_for_each_token(model: str) -> None:
    family = family_of(model)
    plain = copy.deepcopy(family.module)
    PromptedModel(family.module, prompted)
    chosen = features(family)
    task = named_stream("embedded", Limits(max_train=8, max_test=10)).tasks[1]
    family.max_new_tokens = lambda task: 6  # type: ignore[method-assign]
    found = [answer for answer, _ in family.answers(task, chosen, torch.device("cpu"))]
    assert len(set(found)) > 1
    for feature, text in zip(chosen, found, strict=True):
        out: list[int] = []
        for _ in range(6):
            if family.source.kind == "encoder-decoder":
                start = torch.tensor([[plain.config.decoder_start_token_id, *out]])
                logits = plain(inputs_embeds=among(plain, feature["source"], 0), decoder_input_ids=start).logits
            else:
                logits = plain(inputs_embeds=among(plain, feature["source"] + out, 0)).logits
            out.append(int(logits[0, -1].argmax()))
            if out[-1] == family.tokenizer.eos_token_id:
                break
        assert text == family.tokenizer.decode(out, skip_special_tokens=True)


@torch.no_grad()
def test_reading_bare_is_the_frozen_model() -> None:
    for model in ("tiny-t5", "tiny-bert", "tiny-llama"):
        family = family_of(model)
        plain = copy.deepcopy(family.module)
        hooks = PromptedModel(family.module, prompted)
        family.module.train()
        batch = family.collate(features(family))
        states = hooks.read_bare(hooks.embeddings(batch.source.ids), batch.source.mask)
        reader = plain.get_encoder() if model == "tiny-t5" else plain.base_model
        expected = reader(input_ids=batch.source.ids, attention_mask=batch.source.mask).last_hidden_state
        real = batch.source.mask.bool()
        torch.testing.assert_close(states[real], expected[real])
        assert family.module.training
        assert hooks.reader.training


def test_too_long_an_input_is_refused() -> None:
    family = family_of("tiny-bert")
    PromptedModel(family.module, lambda embeds, mask: embeds.new_zeros(len(embeds), 510, 32))
    batch = family.collate(features(family))
    with pytest.raises(ValueError, match=r"more than the model's 514 positions; lower model.max_source"):
        family.forward(family.module, batch)


def test_loss_weights_of_examples_by_hand() -> None:
    labels = torch.tensor([[1, 2, -100], [3, -100, -100]])
    torch.testing.assert_close(
        example_loss_weights(toy.batch(labels=labels, loss_weight=0.6)), torch.tensor([0.4, 0.2])
    )
    assert example_loss_weights(toy.batch(labels=torch.tensor([5, 6]), loss_weight=0.5)).tolist() == [0.25, 0.25]


def test_prompts_start_from_tokens() -> None:
    table = torch.nn.Embedding(50, 4)
    prompt = random_token_embeddings(table, 8, torch.Generator().manual_seed(0))
    assert all(any(torch.equal(vector, token) for token in table.weight) for vector in prompt)
    assert torch.equal(prompt, random_token_embeddings(table, 8, torch.Generator().manual_seed(0)))
