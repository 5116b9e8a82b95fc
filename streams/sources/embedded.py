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

from streams.base import Example, Limits, Stream, Task
from streams.sources.wordings import EMBEDDED, EMBEDDED_TUNING, Wording

TRAIN_ROWS, TEST_ROWS = 800, 200


GENERATED: dict[str, tuple[Wording, ...]] = {"embedded": EMBEDDED, "embedded-tuning": EMBEDDED_TUNING}


def generate(wording: Wording, rows: int, seed: int, split: str) -> list[Example]:
    """`rows` sentences, classes in equal shares, drawn from a generator seeded by (seed, task, split)."""
    rng = random.Random(f"{seed}/{wording.name}/{split}")
    examples = []
    for row in range(rows):
        label = tuple(wording.cues)[row % len(wording.cues)]
        first, second = rng.sample(wording.cues[label], 2)
        text = rng.choice(wording.templates).replace("{a}", first).replace("{b}", second)
        while "{n}" in text:
            text = text.replace("{n}", rng.choice(wording.neutral), 1)
        examples.append(Example(text, label))
    rng.shuffle(examples)
    return examples


def _load(wording: Wording, seed: int, split: Literal["train", "test"]) -> Sequence[Example]:
    train = generate(wording, TRAIN_ROWS, seed, "train")
    if split == "train":
        return train
    seen = {example.text for example in train}
    return [e for e in generate(wording, TEST_ROWS, seed, "test") if e.text not in seen]


def embedded(name: str = "embedded", limits: Limits = Limits()) -> Stream:
    """The five generated tasks of a name in `GENERATED`. `limits.seed` also seeds the sentences."""
    return Stream(
        name,
        tuple(
            Task(
                name=w.name,
                category=w.category,
                instruction=w.instruction,
                labels=tuple(w.cues),
                source=f"generated:{w.name}@{limits.seed}",
                load=partial(_load, w, limits.seed),
                limits=limits,
                dataset=f"generated/{w.name}",
            )
            for w in GENERATED[name]
        ),
    )


def vocabulary() -> list[str]:
    """Every word that the generated tasks can contain, prompts and labels included, in a fixed order."""
    words: dict[str, None] = {}
    for name, wordings in GENERATED.items():
        for task, w in zip(embedded(name).tasks, wordings, strict=True):
            texts = [str(task.prompt(" ")), *w.templates, *w.neutral, *w.cues]
            texts += [word for cues in w.cues.values() for word in cues]
            for text in texts:
                words.update(dict.fromkeys(text.split()))
    return [word for word in words if "{" not in word]
