"""Encoder-decoders: what the encoder reads, what the decoder reads and writes, and what the loss is taken over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from orchestrator.models.encoder_decoder import AllowedTokens, EncoderDecoder
from orchestrator.models.family import Family, Feature
from orchestrator.training.learner import Learner
from streams import Example, Prompt
from tests.orchestrator.models.choices import assert_choices_are_the_loops
from tests.orchestrator.models.greedy import assert_answers_are_greedy
from tests.orchestrator.models.likelihoods import assert_losses_are_the_loops

FEATURES: list[Feature] = [
    {"source": [5, 6, 7], "target": [8, 2], "class_index": 0},
    {"source": [9], "target": [10, 11, 2], "class_index": 1},
]


def task_of(*labels: str) -> Any:
    """A task of those labels whose prompt is the text and a question."""
    return SimpleNamespace(name="t", labels=labels, prompt=lambda text: Prompt("", text, " Answer:"))


@pytest.fixture
def family(learner_of: Callable[..., Learner]) -> Family:
    """The small T5, which answers in at most eight tokens."""
    family = learner_of(model="tiny-t5").family
    assert type(family) is EncoderDecoder
    return family


def test_prompt_and_answer_are_texts_of_their_own(family: Family) -> None:
    (feature,) = family.features(task_of("bad", "good"), [Example("the film", "good")])
    words = family.tokenizer.convert_ids_to_tokens
    assert words(feature["source"]) == ["▁the", "▁film", "▁Answer", ":", "</s>"]
    assert words(feature["target"]) == ["▁good", "</s>"]
    assert family.labels[feature["class_index"]] == "good"
    assert family.loss_terms(feature) == 2
    (long,) = family.features(task_of(), [Example("the film", "the " * 20)])
    assert words(long["target"]) == ["▁the"] * 7 + ["</s>"]


def test_a_batch_by_hand(family: Family) -> None:
    """The decoder begins with the padding token, as T5's does, and reads each answer one token later."""
    batch = family.collate(FEATURES)
    assert batch.source.ids.tolist() == [[5, 6, 7], [9, 0, 0]]
    assert batch.source.mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.labels.tolist() == [[8, 2, -100], [10, 11, 2]]
    assert batch.target is not None
    assert batch.target.ids.tolist() == [[0, 8, 2], [0, 10, 11]]
    assert batch.target.mask.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch.classes.tolist() == [0, 1]


def test_the_loss_is_summed_over_the_answers_tokens(family: Family) -> None:
    family.module.eval()
    loss, _ = family.forward(family.module, family.collate(FEATURES))
    expected = 0.0
    for feature in FEATURES:
        read = torch.tensor([[0, *feature["target"][:-1]]])
        logits = family.module(input_ids=torch.tensor([feature["source"]]), decoder_input_ids=read).logits
        chances = logits[0].log_softmax(-1)
        for position, token in enumerate(feature["target"]):
            expected -= chances[position, token].item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_an_answer_may_be_one_token_longer_than_any_label(family: Family) -> None:
    """Then it differs from every label. Three tokens "▁the ▁film </s>", and one more."""
    assert family.max_new_tokens(task_of("good", "the film")) == 4  # type: ignore[attr-defined]
    assert family.max_new_tokens(task_of("good", "the " * 20)) == 8  # type: ignore[attr-defined]
    assert family.max_new_tokens(task_of()) == 8  # type: ignore[attr-defined]


def test_greedy_answers_equal_a_step_by_step_search(learner_of: Callable[..., Learner]) -> None:
    assert_answers_are_greedy(learner_of(model="tiny-t5"))


def test_no_label_set_is_needed(family: Family) -> None:
    batch = family.collate(family.features(task_of(), [Example("a long text", "what it says")]))
    assert batch.classes.tolist() == [-1]
    assert torch.isfinite(family.forward(family.module, batch)[0])


def test_the_logits_are_those_that_the_loss_compares_and_no_cache_is_kept(family: Family) -> None:
    family.module.eval()
    seen = []
    original = family.module.forward

    def forward(**arguments: Any) -> Any:
        output = original(**arguments)
        seen.append(output)
        return output

    loss, logits_NV = family.forward(forward, family.collate(FEATURES))  # type: ignore[arg-type]
    answers = torch.tensor([token for feature in FEATURES for token in feature["target"]])
    assert len(logits_NV) == len(answers)
    expected = -logits_NV.log_softmax(-1)[range(len(answers)), answers].sum()
    torch.testing.assert_close(loss, expected)
    assert seen[0].past_key_values is None


def test_losses_of_answers_are_those_of_a_plain_loop(learner_of: Callable[..., Learner]) -> None:
    assert_losses_are_the_loops(learner_of(model="tiny-t5").family)


def test_the_bytes_of_an_answer_that_is_cut_are_those_that_are_left(learner_of: Callable[..., Learner]) -> None:
    family = learner_of(model="tiny-t5").family
    (short,) = family.answer_ids(["good"])
    assert family.num_bytes("good", short) == 4
    # a letter may have two bytes
    assert family.num_bytes("bäd", short) == 4
    # eight tokens with the end, of which seven are words
    (cut,) = family.answer_ids(["good " * 20])
    assert (len(cut), cut[-1]) == (8, family.tokenizer.eos_token_id)
    assert family.num_bytes("good " * 20, cut) == len("good good good good good good good")
    (exact,) = family.answer_ids(["good good good good good good bad"])
    assert (len(exact), family.num_bytes("good good good good good good  bad", exact)) == (8, 34)


@pytest.mark.parametrize("scoring", ["rank", "constrained"])
def test_labels_are_chosen_as_by_a_plain_loop(scoring: str, learner_of: Callable[..., Learner]) -> None:
    assert_choices_are_the_loops(learner_of(model="tiny-t5"), scoring)


def test_labels_that_are_one_in_their_tokens_are_not_chosen_among(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model="tiny-t5")
    family = learner.family
    assert isinstance(family, EncoderDecoder)
    long = "good " * 8
    task = replace(learner.stream.tasks[0], labels=("good", long + "bad", long + "lovely"))
    with pytest.raises(
        ValueError, match=r"the labels .*bad' and .*lovely' are one to 'tiny-t5', in at most .*target: 8"
    ):
        family.option_ids(task)


def test_an_answer_goes_on_with_what_some_label_goes_on_with_and_then_ends() -> None:
    allowed = AllowedTokens([[5, 6, 2], [5, 7, 2], [8, 2]], num_before=1, pad=0)
    for written, following in (([], [5, 8]), ([5], [6, 7]), ([5, 7], [2]), ([8], [2]), ([8, 2], [0]), ([8, 2, 0], [0])):
        assert allowed(0, torch.tensor([9, *written])) == following
