"""The streams that need no download: five small text-to-text tasks each, generated from a seed.

Each task has its own instruction, label set and wording. A text is a sentence in which two cue words of one class stand
among neutral words; cue words are drawn at random, so test sentences are new combinations. Nothing in the generator
knows of any method.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import Literal

from streams.sources.source import Source
from streams.sources.wordings import EMBEDDED, EMBEDDED_TUNING, Wording
from streams.splits import Example, Limits, RawSplit
from streams.stream import Stream
from streams.task import Task

TRAIN_ROWS = 800
TEST_ROWS = 200
GENERATED: dict[str, tuple[Wording, ...]] = {"embedded": EMBEDDED, "embedded-tuning": EMBEDDED_TUNING}


class EmbeddedSource(Source):
    """Generated tasks, of one of the two sets of words."""

    words: Literal["embedded", "embedded-tuning"]

    def stream(self, name: str, limits: Limits) -> Stream:
        """The five generated tasks. `limits.seed` also seeds the sentences."""
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
    """Every word that the generated tasks can contain, prompts and labels included, in a fixed order."""
    # a dict keeps the order of first appearance, which numbers the words of the built-in models
    words: dict[str, None] = {}
    for wordings in GENERATED.values():
        for wording in wordings:
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
