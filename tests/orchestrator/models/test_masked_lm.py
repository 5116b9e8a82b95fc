"""Masked language models: which tokens are chosen, what becomes of them, and the loss over them alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from methods import IGNORED
from orchestrator.models.family import Feature
from orchestrator.models.masked_lm import MaskedLanguageModel, mask, num_predicted
from orchestrator.training.learner import Learner
from tests.orchestrator.models.corpora import corpus_learner

MASK_TOKEN = 3


@pytest.fixture(params=["tiny-bert", "tiny-roberta"])
def learner(request: pytest.FixtureRequest, learner_of: Callable[..., Learner]) -> Learner:
    return corpus_learner(learner_of, request.param)


def family_of(learner: Learner) -> MaskedLanguageModel:
    assert isinstance(learner.family, MaskedLanguageModel)
    return learner.family


def test_how_many_are_predicted() -> None:
    assert [num_predicted(count) for count in (1, 3, 9, 10, 46, 100, 510)] == [1, 1, 1, 2, 7, 15, 76]


def test_four_fifths_are_hidden_a_tenth_replaced_and_a_tenth_left() -> None:
    size = 100_000
    ids = torch.arange(size) + 10
    candidates = torch.arange(0, size, 2)
    read, labels = mask(ids, candidates, MASK_TOKEN, size + 10, torch.Generator().manual_seed(0))
    chosen = (labels != IGNORED).nonzero().flatten()
    assert len(chosen) == 7500
    assert not (chosen % 2).any()
    assert torch.equal(labels[chosen], ids[chosen])
    untouched = torch.ones(size, dtype=torch.bool)
    untouched[chosen] = False
    assert torch.equal(read[untouched], ids[untouched])
    hidden = int((read[chosen] == MASK_TOKEN).sum())
    left = int((read[chosen] == ids[chosen]).sum())
    # within four standard deviations of 6000, 750 and 750
    assert abs(hidden - 6000) < 4 * (7500 * 0.8 * 0.2) ** 0.5
    assert abs(left - 750) < 4 * (7500 * 0.1 * 0.9) ** 0.5
    assert abs(7500 - hidden - left - 750) < 4 * (7500 * 0.1 * 0.9) ** 0.5
    replaced = read[chosen][(read[chosen] != MASK_TOKEN) & (read[chosen] != ids[chosen])]
    # from all over the vocabulary
    assert len(replaced.unique()) > 0.95 * len(replaced)
    assert torch.equal(ids, torch.arange(size) + 10)


def test_special_tokens_are_read_and_never_predicted(learner: Learner) -> None:
    family = family_of(learner)
    special = set(family.tokenizer.all_special_ids)
    features = learner.features(0)
    assert any(family.document_end in feature["source"][1:-1] for feature in features), "a document ends in a block"
    for epoch in range(5):
        batch = family.collate(family.drawn(features, 0, epoch))
        assert not special & set(batch.answer_tokens().tolist())
        for feature, ids, labels in zip(features, batch.source.ids, batch.labels, strict=True):
            assert (ids[0], ids[len(feature["source"]) - 1]) == (family.first, family.document_end)
            assert int((labels != IGNORED).sum()) == family.loss_terms(feature)
            candidates = [token for token in feature["source"] if token not in special]
            assert family.loss_terms(feature) == max(1, round(0.15 * len(candidates)))


def masks_of(family: MaskedLanguageModel, features: Any) -> torch.Tensor:
    return family.collate(features).labels


def test_the_mask_is_a_function_of_seed_task_epoch_and_block(learner: Learner) -> None:
    family = family_of(learner)
    blocks = learner.features(0)[:4]
    first = masks_of(family, family.drawn(blocks, 1, 2))
    assert torch.equal(masks_of(family, family.drawn(blocks, 1, 2)), first)
    # in whatever company and order
    assert torch.equal(masks_of(family, family.drawn([blocks[2], blocks[0]], 1, 2)), first[[2, 0]])
    # drawn for another epoch before, as what a method keeps may have been
    assert torch.equal(masks_of(family, family.drawn(family.drawn(blocks, 1, 7), 1, 2)), first)
    others = [family.drawn(blocks, 1, 3), family.drawn(blocks, 0, 2)]
    for other in others:
        assert not torch.equal(masks_of(family, other), first)
    family.seed += 1
    assert not torch.equal(masks_of(family, family.drawn(blocks, 1, 2)), first)
    same_tokens: list[Feature] = [{**blocks[0], "block": ["other", 0]}]
    assert not torch.equal(
        masks_of(family, family.drawn(same_tokens, 1, 2)), masks_of(family, family.drawn(blocks[:1], 1, 2))
    )


def test_outside_training_the_mask_is_that_of_the_block_alone(learner: Learner) -> None:
    family = family_of(learner)
    blocks = learner.features(0)[:4]
    first = masks_of(family, blocks)
    family.seed += 1
    assert torch.equal(masks_of(family, blocks), first)
    assert not torch.equal(first[0], first[1])


def test_the_loss_is_that_of_the_predicted_tokens(learner: Learner) -> None:
    """Against a plain loop over the model's own logits."""
    family = family_of(learner)
    family.module.eval()
    features = learner.features(0)[:2] + learner.features(0)[-1:]
    assert len(features[-1]["source"]) < len(features[0]["source"]), "one is padded"
    batch = family.collate(features)
    loss, logits = family.forward(family.module, batch)
    expected = 0.0
    for feature, ids, labels in zip(features, batch.source.ids, batch.labels, strict=True):
        length = len(feature["source"])
        alone = family.module(input_ids=ids[None, :length]).logits[0].log_softmax(1).detach()
        for position in range(length):
            if labels[position] != IGNORED:
                expected -= float(alone[position, feature["source"][position]])
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert logits.shape == (sum(map(family.loss_terms, features)), len(family.tokenizer))


def test_each_epoch_of_training_has_masks_of_its_own(learner: Learner) -> None:
    family = family_of(learner)
    num_blocks = len(learner.training_set(0))
    batches = learner.global_batches(0)
    seen: dict[int, list[Any]] = {}
    # as many batches as two epochs have, each of eight blocks
    for _ in range(2 * -(-num_blocks // 8)):
        for feature in next(batches):
            seen.setdefault(feature["block"][1], []).append((feature["draw"], masks_of(family, [feature])))
    draws = {tuple(draw) for of_block in seen.values() for draw, _ in of_block}
    assert draws == {(7, 0, 0), (7, 0, 1)}
    for of_block in seen.values():
        by_epoch = {draw[2]: labels for draw, labels in of_block}
        assert not torch.equal(by_epoch[0], by_epoch[1])


@pytest.mark.parametrize("token", ["mask", "cls"])
def test_a_tokenizer_without_such_tokens_is_refused(
    token: str, learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = family_of(learner)
    monkeypatch.setattr(f"transformers.PreTrainedTokenizerFast.{token}_token_id", None, raising=False)
    with pytest.raises(ValueError, match=rf"^model 'tiny-(bert|roberta)': its tokenizer has no {token} token, .*$"):
        MaskedLanguageModel(family.source, family.config, (), 0)


def test_the_loss_is_divided_by_how_many_are_predicted(learner: Learner) -> None:
    """Of ten tokens and ten ends of documents two are, where of twenty tokens it would be three."""
    family = family_of(learner)
    ends: Feature = {"source": [family.first, *[300, family.document_end] * 10], "target": [], "class_index": -1}
    tokens: Feature = {"source": [family.first, *[300] * 20, family.document_end], "target": [], "class_index": -1}
    assert [family.loss_terms(ends), family.loss_terms(tokens)] == [2, 3]
    denominator = learner.loss_denominator([ends, tokens])
    assert denominator == 5
    weights = [learner.make_batch([feature], denominator).loss_weight for feature in (ends, tokens)]
    assert weights == [0.4, 0.6]
    assert family.collate([ends, tokens]).answers_by_example() == [2, 3]
