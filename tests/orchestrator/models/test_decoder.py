"""Decoders: what a prompt and its answer look like as one stream of tokens, and what the loss is taken over."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers.pre_tokenizers import Metaspace

from orchestrator.models.decoder import Decoder
from orchestrator.models.family import Family, Feature
from orchestrator.training.learner import Learner
from streams import Corpus, Example, Prompt
from tests.orchestrator.models.choices import assert_choices_are_the_loops
from tests.orchestrator.models.corpora import corpus_learner
from tests.orchestrator.models.greedy import assert_answers_are_greedy
from tests.orchestrator.models.likelihoods import assert_losses_are_the_loops

FEATURES: list[Feature] = [
    {"source": [5, 6, 7], "target": [8, 2], "class_index": 0},
    {"source": [9], "target": [10, 11, 2], "class_index": 1},
    {"source": [12], "target": [2], "class_index": 0},
]


def task_of(*labels: str) -> Any:
    """A task of those labels whose prompt is the text and a question."""
    return SimpleNamespace(name="t", labels=labels, prompt=lambda text: Prompt("", text, " Answer:"))


@pytest.fixture
def family(learner_of: Callable[..., Learner]) -> Family:
    """The small Llama, which answers in at most eight tokens."""
    family = learner_of(model="tiny-llama").family
    assert isinstance(family, Decoder)
    return family


def words(family: Family, ids: list[int]) -> list[str]:
    found: list[str] = family.tokenizer.convert_ids_to_tokens(ids)
    return found


def test_the_answer_follows_the_prompt_as_its_next_word(family: Family) -> None:
    (feature,) = family.features(task_of("bad", "good"), [Example("the film", "good")])
    assert words(family, feature["source"]) == ["<s>", "▁the", "▁film", "▁Answer", ":"]
    assert words(family, feature["target"]) == ["▁good", "</s>"]
    assert family.labels[feature["class_index"]] == "good"


def test_the_space_before_an_answer_is_a_part_of_it(family: Family) -> None:
    """With a tokenizer that puts no space before a text: the first word of a text is then another token than any later."""
    family.tokenizer.backend_tokenizer.pre_tokenizer = Metaspace(prepend_scheme="never")
    (feature,) = family.features(task_of("bad", "good"), [Example("the film", "good")])
    assert words(family, feature["source"])[-2:] == ["▁Answer", ":"]
    assert words(family, feature["target"]) == ["▁good", "</s>"]
    assert family.max_new_tokens(task_of("good")) == 3  # type: ignore[attr-defined]


def test_an_answer_that_is_too_long_is_cut_and_still_ends(family: Family) -> None:
    (feature,) = family.features(task_of(), [Example("the film", "the " * 20)])
    assert words(family, feature["target"]) == ["▁the"] * 7 + ["</s>"]


def test_no_end_stands_between_prompt_and_answer(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some tokenizers close every text. A text that is nothing but its end stays: a model cannot read no token."""
    monkeypatch.setattr(family, "encode_texts", lambda task, examples: [[1, 5, 2], [2], [1, 2, 5]])
    features = family.features(task_of(), [Example("", "good")] * 3)
    assert [feature["source"] for feature in features] == [[1, 5], [2], [1, 2, 5]]


def test_a_batch_by_hand(family: Family) -> None:
    batch = family.collate(FEATURES)
    assert batch.source.ids.tolist() == [[5, 6, 7, 8, 2], [9, 10, 11, 2, 0], [12, 2, 0, 0, 0]]
    assert batch.source.mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 0, 0, 0]]
    assert batch.labels.tolist() == [
        [-100, -100, -100, 8, 2],
        [-100, 10, 11, 2, -100],
        [-100, 2, -100, -100, -100],
    ]
    assert batch.classes.tolist() == [0, 1, 0]
    assert batch.target is None


def test_the_loss_is_that_of_the_answers_tokens_each_read_one_token_before(family: Family) -> None:
    family.module.eval()
    loss, _ = family.forward(family.module, family.collate(FEATURES))
    expected = 0.0
    for feature in FEATURES:
        whole = feature["source"] + feature["target"]
        chances = family.module(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
        for position in range(len(feature["source"]), len(whole)):
            expected -= chances[position - 1, whole[position]].item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_an_answer_may_be_one_token_longer_than_any_label(family: Family) -> None:
    """Then it differs from every label. Three tokens "▁the ▁film </s>", and one more."""
    assert len(family.tokenizer(" the film", add_special_tokens=False).input_ids) == 2
    assert family.max_new_tokens(task_of("good", "the film")) == 4  # type: ignore[attr-defined]
    assert family.max_new_tokens(task_of("good", "the " * 20)) == 8  # type: ignore[attr-defined]
    assert family.max_new_tokens(task_of()) == 8  # type: ignore[attr-defined]


def test_greedy_answers_equal_a_step_by_step_search(learner_of: Callable[..., Learner]) -> None:
    assert_answers_are_greedy(learner_of(model="tiny-llama"))


def test_no_label_set_is_needed(family: Family) -> None:
    batch = family.collate(family.features(task_of(), [Example("a long text", "what it says")]))
    assert batch.classes.tolist() == [-1]
    assert torch.isfinite(family.forward(family.module, batch)[0])


def test_logits_are_computed_from_the_first_answer_on(family: Family) -> None:
    """Of a text of five tokens whose answer is last nobody asks for the logits at the first three."""
    computed = []
    family.module.get_output_embeddings().register_forward_pre_hook(
        lambda head, inputs: computed.append(inputs[0].shape)
    )  # type: ignore[operator]
    batch = family.collate(FEATURES[:1])
    whole, _ = family.forward(family.module, batch)
    # who looks at the head sees every token
    assert computed.pop()[:2] == (1, 5)
    family.module.get_output_embeddings()._forward_pre_hooks.clear()  # type: ignore[operator]
    seen = []
    original = family.module.forward

    def forward(**arguments: Any) -> Any:
        output = original(**arguments)
        seen.append(output)
        return output

    loss, logits = family.forward(forward, batch)  # type: ignore[arg-type]
    assert seen[0].logits.shape[:2] == (1, 3), "at the last token of the text, and at both of the answer"
    assert seen[0].past_key_values is None
    assert len(logits) == 2
    torch.testing.assert_close(loss, whole)


def test_the_logits_are_those_that_the_loss_compares(family: Family) -> None:
    family.module.eval()
    loss, logits_NV = family.forward(family.module, family.collate(FEATURES))
    answers = torch.tensor([token for feature in FEATURES for token in feature["target"]])
    assert len(logits_NV) == len(answers)
    expected = -logits_NV.log_softmax(-1)[range(len(answers)), answers].sum()
    torch.testing.assert_close(loss, expected)


def test_losses_of_answers_are_those_of_a_plain_loop(learner_of: Callable[..., Learner]) -> None:
    assert_losses_are_the_loops(learner_of(model="tiny-llama").family)


def test_the_bytes_of_an_answer_that_is_cut_are_those_that_are_left(learner_of: Callable[..., Learner]) -> None:
    family = learner_of(model="tiny-llama").family
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


def test_of_a_corpus_each_token_is_predicted_once(learner_of: Callable[..., Learner]) -> None:
    """The losses of all blocks together are those of a plain loop over the stream of tokens."""
    learner = corpus_learner(learner_of, "tiny-llama")
    family = learner.family
    family.module.eval()
    task = learner.stream.tasks[0]
    assert isinstance(task, Corpus)
    stream = []
    for document in task.documents("train"):
        stream += [*family.tokenizer(document, add_special_tokens=False).input_ids, family.tokenizer.eos_token_id]
    blocks = list(learner.features(0))
    assert sum(map(family.loss_terms, blocks)) == len(stream)
    assert max(map(family.length, blocks)) == family.config.max_source
    loss, _ = family.forward(family.module, family.collate(blocks))
    expected = 0.0
    for first in range(0, len(stream), 47):
        before = stream[first - 1] if first else family.tokenizer.bos_token_id
        block = torch.tensor(stream[first : first + 47])
        logits = family.module(input_ids=torch.cat([torch.tensor([before]), block])[None]).logits[0].detach()
        expected -= float(logits[:-1].log_softmax(1).gather(1, block[:, None]).sum())
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("scoring", ["rank", "constrained"])
def test_labels_are_chosen_as_by_a_plain_loop(scoring: str, learner_of: Callable[..., Learner]) -> None:
    assert_choices_are_the_loops(learner_of(model="tiny-llama"), scoring)
