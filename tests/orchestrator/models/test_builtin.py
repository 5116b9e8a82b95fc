"""The built-in models: the words of the embedded stream are tokens, any other text comes back too, and nothing is random."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from tokenizers import Tokenizer

from orchestrator.models.builtin import BUILTIN, BUILTIN_KIND, TEMPLATES, builtin_tokenizer_json
from orchestrator.models.source import DESCRIPTIONS
from streams import Limits, find_source


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_str(builtin_tokenizer_json())


@pytest.mark.parametrize("words", ["embedded", "embedded-tuning"])
def test_each_word_of_the_embedded_streams_is_one_token(words: str, tokenizer: Tokenizer) -> None:
    source = find_source("embedded").model_validate({"words": words})
    seen = set()
    for task in source.stream(words, Limits()).tasks:
        for example in task.read("train"):
            seen.update(f"{example.text} {example.label}".split())
    several = [word for word in seen if word.isalpha() and len(tokenizer.encode(word).ids) != 1]
    assert len(seen) > 200
    assert several == []


def test_made_up_words_leave_the_tokenizer_as_it_is_and_fit_into_a_prompt_of_64_tokens(tokenizer: Tokenizer) -> None:
    """Keys of all states of the built-in models are made of the tokenizer."""
    assert hashlib.sha256(builtin_tokenizer_json().encode()).hexdigest()[:12] == "b009bd8e18f5"
    for task in find_source("embedded").model_validate({"words": "embedded-long"}).stream("s", Limits()).tasks:
        assert max(len(tokenizer.encode(label).ids) for label in task.labels) < 8
        for example in task.read("test"):
            # one more is the end token
            assert len(tokenizer.encode(str(task.prompt(example.text))).ids) < 64


@pytest.mark.parametrize("text", ["zyxxyz", "naïve 你好 🙂", "a\u0301", "<0x41>", "e-mail: x@y.z, 100%!"])
def test_any_other_text_falls_to_pieces_and_comes_back(text: str, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(text).ids
    assert len(ids) > 1
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text


def test_spaces_of_any_kind_are_one_and_special_tokens_are_not_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("the \t\n film").ids == tokenizer.encode("the film").ids
    assert [tokenizer.token_to_id(token) for token in ("<pad>", "<s>", "</s>", "<unk>")] == [0, 1, 2, 3]
    film = tokenizer.encode("film").ids
    assert tokenizer.decode([1, *film, 2, 0], skip_special_tokens=True).strip() == "film"


def test_every_model_has_a_kind_a_template_and_a_description() -> None:
    for name, values in BUILTIN.items():
        assert values["model_type"] in BUILTIN_KIND
        assert values["model_type"] in TEMPLATES
        assert name in DESCRIPTIONS


@pytest.mark.parametrize("name", BUILTIN)
def test_no_model_drops_anything_out(name: str) -> None:
    """By transformers' names: a share that a model does not state would be transformers' default, often 0.1."""
    from transformers import AutoConfig

    config: dict[str, Any] = AutoConfig.for_model(**BUILTIN[name]).to_dict()
    shares = {key: value for key, value in config.items() if "dropout" in key and value is not None}
    assert shares
    assert set(shares.values()) == {0.0}
