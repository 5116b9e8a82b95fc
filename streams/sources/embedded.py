"""The streams that need no download: small text-to-text tasks, generated from a seed.

Each task has its own instruction, label set and wording. A text is a sentence in which two cue words of one class stand
among neutral words; cue words are drawn at random, so test sentences are new combinations. Nothing in the generator
knows of any method.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import partial
from typing import Literal

from streams.sources.made_up import made_up_wordings
from streams.sources.source import Source
from streams.sources.wordings import EMBEDDED, EMBEDDED_TUNING, Wording
from streams.splits import Example, Limits, RawSplit
from streams.stream import Stream
from streams.task import Task

TRAIN_ROWS = 800
TEST_ROWS = 200
LONG_TASKS = 15


def _handmade_words() -> set[str]:
    """All words of the handmade streams, without case and punctuation."""
    words: set[str] = set()
    for wording in (*EMBEDDED, *EMBEDDED_TUNING):
        for text in _texts(wording):
            words.update(re.findall("[a-z]+", text.lower()))
    return words


class EmbeddedSource(Source):
    """Generated tasks, of one of the sets of words."""

    words: Literal["embedded", "embedded-tuning", "embedded-long"]

    def stream(self, name: str, limits: Limits) -> Stream:
        """The generated tasks. `limits.seed` also seeds the sentences."""
        tasks = []
        for wording in GENERATED[self.words]:
            tasks.append(_task(wording, limits))
        return Stream(name, tuple(tasks))


def _task(wording: Wording, limits: Limits) -> Task:
    return Task(
        name=wording.name,
        category=wording.category,
        instruction=wording.instruction,
        labels=tuple(wording.cues),
        source=f"generated:{wording.name}@{limits.seed}",
        load=partial(_load, wording, limits.seed),
        limits=limits,
        dataset=f"generated/{wording.name}",
    )


def generate(wording: Wording, rows: int, seed: int, split: str) -> list[Example]:
    """`rows` sentences, classes in equal shares, drawn from a generator seeded by (seed, task, split)."""
    # seeded by text, so that one task's sentences do not depend on how many tasks are made before it
    rng = random.Random(f"{seed}/{wording.name}/{split}")
    labels = tuple(wording.cues)
    examples = []
    for row in range(rows):
        label = labels[row % len(labels)]
        # the order of the draws (cues, template, neutral words) is part of the data: stored keys depend on it
        first, second = rng.sample(wording.cues[label], 2)
        text = rng.choice(wording.templates)
        text = text.replace("{a}", first).replace("{b}", second)
        while "{n}" in text:
            text = text.replace("{n}", rng.choice(wording.neutral), 1)
        examples.append(Example(text, label))
    rng.shuffle(examples)
    return examples


def _load(wording: Wording, seed: int, split: RawSplit) -> Sequence[Example]:
    train = generate(wording, TRAIN_ROWS, seed, "train")
    if split == "train":
        return train
    # few words make few sentences: what train has by chance is no new sentence
    seen = {example.text for example in train}
    unseen = []
    for example in generate(wording, TEST_ROWS, seed, "test"):
        if example.text not in seen:
            unseen.append(example)
    return unseen


def vocabulary() -> list[str]:
    """Every word that the handmade tasks can contain, prompts and labels included, in a fixed order.

    The built-in models' tokenizer is made of these, and is part of the keys of every state that they were trained to: no
    other word can join them. Made-up words are spelt in pieces.
    """
    # a dict keeps the order of first appearance, which numbers the words of the built-in models
    words: dict[str, None] = {}
    for wording in (*EMBEDDED, *EMBEDDED_TUNING):
        for text in _texts(wording):
            words.update(dict.fromkeys(text.split()))
    # the blanks of the templates are no words
    return [word for word in words if "{" not in word]


def _texts(wording: Wording) -> list[str]:
    prompt = str(_task(wording, Limits()).prompt(" "))
    texts = [prompt, *wording.templates, *wording.neutral, *wording.cues]
    for cues in wording.cues.values():
        texts.extend(cues)
    return texts


GENERATED: dict[str, tuple[Wording, ...]] = {
    "embedded": EMBEDDED,
    "embedded-tuning": EMBEDDED_TUNING,
    "embedded-long": made_up_wordings(LONG_TASKS, "embedded-long", _handmade_words()),
}
