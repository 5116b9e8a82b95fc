"""The generated corpora."""

from __future__ import annotations

import hashlib
import itertools

import pytest

from streams import Corpus, Limits, named_stream, vocabulary
from streams.sources.embedded_corpora import GENERATED_CORPORA, SHARES

NAMES = ("embedded-cpt", "embedded-cpt-tuning")
# (train, test) of the four corpora: keys of stored checkpoints and scores are made of these
HASHES = [
    ("a4b347400c28", "cc8d58c96898"),
    ("ce3b67d72f04", "5fac1319a0ec"),
    ("9dd4ebad8c1d", "1ace473c5122"),
    ("74d54a35dfb9", "15068289fb9f"),
]


def corpora(name: str, seed: int = 0) -> list[Corpus]:
    tasks = named_stream(name, Limits(seed=seed)).tasks
    return [task for task in tasks if isinstance(task, Corpus)]


def test_no_word_is_one_of_another_language_or_of_the_other_streams() -> None:
    words = [word for languages in GENERATED_CORPORA.values() for language in languages for word in language.words]
    assert len(words) == len(set(words)) == 8 * 60
    assert not set(words) & set(vocabulary())
    for task in named_stream("embedded-long").tasks:
        text = " ".join(example.text for example in task.read("train"))
        assert not set(words) & set(text.split())


def test_the_built_in_models_read_as_they_did() -> None:
    """Their tokenizer is made of these words, and keys of stored checkpoints of the tokenizer."""
    assert hashlib.sha256("\n".join(vocabulary()).encode()).hexdigest()[:12] == "4252451e4b5f"


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_function_of_its_seed(name: str) -> None:
    first, again, other = corpora(name), corpora(name), corpora(name, seed=1)
    assert len(first) == 4
    assert [task.train_hash for task in first] == [task.train_hash for task in again]
    for one, another in zip(first, other, strict=True):
        assert one.train_hash != another.train_hash
        assert one.test_hash != one.train_hash


def test_its_content_is_what_stored_keys_are_made_of() -> None:
    assert [(task.train_hash[:12], task.test_hash[:12]) for task in corpora("embedded-cpt")] == HASHES


@pytest.mark.parametrize("name", NAMES)
def test_a_word_is_followed_by_few_words_in_their_shares(name: str) -> None:
    for task, language in zip(corpora(name), GENERATED_CORPORA[name], strict=True):
        ranks = [0] * len(SHARES)
        for document in task.documents("train"):
            for sentence in document.removesuffix(" .").split(" . "):
                words = sentence.split()
                assert set(words) <= set(language.words)
                for word, following in itertools.pairwise(words):
                    ranks[language.successors[word].index(following)] += 1
        total = sum(ranks)
        # within four standard deviations
        for count, share in zip(ranks, SHARES, strict=True):
            assert abs(count - share * total) < 4 * (share * (1 - share) * total) ** 0.5
