"""Wordings of made-up words: as many generated tasks as are asked for, without one word in common.

The words are pronounceable and short, so that the built-in models, whose tokenizer knows none of them, spell each in about
three pieces, and a prompt has room in 64.
"""

from __future__ import annotations

import random
from collections.abc import Container

from streams.sources.wordings import Wording

CONSONANTS = "bdfgjklmnprstvz"
VOWELS = "aeiou"
SYLLABLES = 2
# as the handmade streams have them, some tasks have fewer classes than others
CLASSES = (2, 4, 5, 4, 3)
CUES_OF_A_CLASS = 12
NEUTRAL_WORDS = 12
# `_` stands for a word that only this task has, and only here
TEMPLATES = ("{a} _ {n} {b}", "_ {n} {b} {a}", "{n} {a} _ {b}", "{b} {n} {a} _")


class Words:
    """Draws made-up words, each once, and none that is taken."""

    def __init__(self, seed: str, taken: Container[str]) -> None:
        self._rng = random.Random(seed)
        self._taken = taken
        self._drawn: set[str] = set()

    def word(self) -> str:
        """A word that was not drawn before."""
        while True:
            word = ""
            for _ in range(SYLLABLES):
                word += self._rng.choice(CONSONANTS) + self._rng.choice(VOWELS)
            if word not in self._drawn and word not in self._taken:
                self._drawn.add(word)
                return word

    def words(self, count: int) -> tuple[str, ...]:
        """So many words."""
        return tuple(self.word() for _ in range(count))


def made_up_wordings(count: int, seed: str, taken: Container[str]) -> tuple[Wording, ...]:
    """The wordings of so many tasks; of more tasks the first ones are the same. No word is among those `taken`."""
    words = Words(seed, taken)
    wordings = []
    for index in range(count):
        wordings.append(_wording(words, CLASSES[index % len(CLASSES)]))
    return tuple(wordings)


def _wording(words: Words, num_classes: int) -> Wording:
    # the order of the draws is part of the data: stored keys depend on it
    name = words.word()
    category = words.word().capitalize()
    instruction = " ".join(words.words(2)).capitalize() + "? "
    templates = []
    for template in TEMPLATES:
        templates.append(template.replace("_", words.word()))
    neutral = words.words(NEUTRAL_WORDS)
    cues = {}
    for _ in range(num_classes):
        cues[words.word()] = words.words(CUES_OF_A_CLASS)
    return Wording(name, category, instruction, tuple(templates), neutral, cues)
