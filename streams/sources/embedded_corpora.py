"""Corpora that need no download: texts in made-up languages, generated from a seed.

Each language has its own words, and after each word only a few others may come, some more often than others: a chain of which
a model can learn the whole, and whose own bits a word are known. A sentence begins with any word. No word of a language is one
of another language or of the other generated streams. They are spelled with the same letters, so the built-in models read them
in pieces, and their vocabulary stays as it is.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar, Literal

from streams.corpora.corpus import Corpus, corpus
from streams.sources.source import Source
from streams.splits import Limits, Objective, Split
from streams.stream import Stream

TRAIN_DOCUMENTS = 400
TEST_DOCUMENTS = 60
NUM_WORDS = 60
# of the words that may follow a word, from the most frequent one
SHARES = (0.6, 0.3, 0.1)


@dataclass(frozen=True)
class Language:
    """A made-up language: its words are two syllables of its own onsets, vowels and codas."""

    name: str
    onsets: str
    vowels: str
    codas: str

    @cached_property
    def words(self) -> tuple[str, ...]:
        """All of its words, in a fixed order."""
        syllables = []
        for onset, vowel, coda in itertools.product(self.onsets.split(), self.vowels.split(), self.codas.split()):
            syllables.append(onset + vowel + coda)
        pairs = list(itertools.product(syllables, syllables))
        chosen = random.Random(f"words of {self.name}").sample(pairs, NUM_WORDS)
        return tuple(first + second for first, second in chosen)

    @cached_property
    def successors(self) -> dict[str, tuple[str, ...]]:
        """The words that may follow each word, the most frequent first."""
        rng = random.Random(f"successors of {self.name}")
        return {word: tuple(rng.sample(self.words, len(SHARES))) for word in self.words}

    def document(self, rng: random.Random) -> str:
        """A text of a few sentences."""
        sentences = []
        for _ in range(rng.randint(6, 12)):
            words = [rng.choice(self.words)]
            for _ in range(rng.randint(4, 8)):
                words.extend(rng.choices(self.successors[words[-1]], SHARES))
            sentences.append(" ".join(words) + " .")
        return " ".join(sentences)


# The onsets and codas say which language a word is of
GENERATED_CORPORA: dict[str, tuple[Language, ...]] = {
    "embedded-cpt": (
        Language("karst", "k g kr gr", "a o u", "lm rn st"),
        Language("veldt", "v f vl fl", "e i a", "n l sk"),
        Language("tundra", "t d tr dw", "u o i", "nd mb s"),
        Language("pampa", "p b pl bl", "a e o", "mp r x"),
    ),
    "embedded-cpt-tuning": (
        Language("fen", "h wh kh", "y u e", "nt g v"),
        Language("bog", "z sh zh", "o a i", "k rd ff"),
        Language("heath", "m n sm", "i e ou", "zz sp l"),
        Language("steppe", "r l sl", "oe a y", "ck th d"),
    ),
}


class EmbeddedCorporaSource(Source):
    """Generated corpora, of one of the two sets of languages."""

    objective: ClassVar[Objective] = "text"

    languages: Literal["embedded-cpt", "embedded-cpt-tuning"]

    def stream(self, name: str, limits: Limits) -> Stream:
        """The four generated corpora. `limits.seed` also seeds the documents."""
        tasks = []
        for language in GENERATED_CORPORA[self.languages]:
            tasks.append(_corpus(language, limits))
        return Stream(name, tuple(tasks))


def _corpus(language: Language, limits: Limits) -> Corpus:
    return corpus(
        language.name,
        f"generated:{language.name}@{limits.seed}",
        {
            "train": partial(generate_documents, language, TRAIN_DOCUMENTS, limits.seed, "train"),
            "test": partial(generate_documents, language, TEST_DOCUMENTS, limits.seed, "test"),
        },
        limits,
        dataset=f"generated/{language.name}",
    )


def generate_documents(language: Language, count: int, seed: int, split: Split) -> Iterator[str]:
    """`count` texts, drawn from a generator seeded by (seed, language, split)."""
    rng = random.Random(f"{seed}/{language.name}/{split}")
    for _ in range(count):
        yield language.document(rng)
