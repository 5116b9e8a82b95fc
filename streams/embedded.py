"""The stream that needs no download: five small text-to-text tasks, generated from a seed.

Each task has its own instruction, label set and wording. A text is a sentence in which two cue words of one class stand
among neutral words; cue words are drawn at random, so test sentences are new combinations. Nothing in the generator
knows of any method.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from streams.base import Example, Limits, Stream, Task

TRAIN_ROWS, TEST_ROWS = 800, 200


@dataclass(frozen=True)
class Wording:
    """What one generated task is made of: templates with `{a}` and `{b}` for cue words and `{n}` for neutral ones."""

    name: str
    category: str
    instruction: str
    templates: tuple[str, ...]
    neutral: tuple[str, ...]
    cues: dict[str, tuple[str, ...]]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WORDINGS = (
    Wording(
        name="reviews",
        category="Opinion",
        instruction="Is the opinion in the review good or bad? ",
        templates=(
            "the {n} was {a} and the {n} felt {b}",
            "we found the {n} {a} , also {b}",
            "{a} {n} with a {b} {n}",
            "my {n} said it was {b} and {a}",
        ),
        neutral=_words(
            "hotel dinner film room service table waiter garden story music phone actor scene staff meal chair"
        ),
        cues={
            "good": _words(
                "lovely superb charming delightful splendid pleasant brilliant tasty fresh elegant warm perfect amazing "
                "friendly cosy excellent"
            ),
            "bad": _words(
                "awful dreadful boring dirty rude bland noisy broken stale ugly terrible cold tedious shabby horrible poor"
            ),
        },
    ),
    Wording(
        name="headlines",
        category="Topic",
        instruction="Which section of the newspaper does the headline belong to? ",
        templates=(
            "{a} news : {n} {b} this week",
            "report says {b} and {a} {n}",
            "{n} {n} after {a} {b}",
            "inside the {a} behind every {b} {n}",
        ),
        neutral=_words(
            "major local early leading national public summer winter surprise second final new older expected"
        ),
        cues={
            "sport": _words(
                "match goal striker league coach tournament medal referee stadium sprint champion penalty cyclist relay"
            ),
            "economy": _words(
                "shares bank profit inflation merger tariff exports budget loan market dividend currency payroll invoice"
            ),
            "science": _words(
                "telescope genome particle fossil vaccine orbit laboratory enzyme neuron satellite glacier isotope comet"
            ),
            "politics": _words(
                "senate ballot minister treaty coalition veto campaign governor embassy lobby mandate election diplomat"
            ),
        },
    ),
    Wording(
        name="requests",
        category="Intent",
        instruction="What does the person want to do? ",
        templates=(
            "please {n} me with the {a} and {b}",
            "can you {n} a {a} for my {b}",
            "i need {b} , {n} the {a} today",
            "{n} my {a} then the {b}",
        ),
        neutral=_words("help show find give check send arrange start handle change bring open"),
        cues={
            "travel": _words(
                "flight ticket airport luggage passport visa ferry itinerary hostel boarding taxi harbour"
            ),
            "cook": _words("recipe oven flour onion garlic soup frying butter dough spice kettle simmer"),
            "listen": _words("song playlist album volume radio podcast melody speaker chorus concert lyrics violin"),
            "repair": _words("screw hammer leak wrench socket wiring hinge drill plumber bolt gasket ladder"),
            "study": _words(
                "homework lecture exam essay textbook grammar algebra tutor notebook chapter syllabus quiz"
            ),
        },
    ),
    Wording(
        name="feelings",
        category="Emotion",
        instruction="Name the emotion of the speaker. ",
        templates=(
            "after the {n} i was {a} and {b}",
            "she became {a} , almost {b} , at the {n}",
            "{b} all {n} and still {a}",
            "they looked {a} when the {n} made them {b}",
        ),
        neutral=_words("party meeting call journey letter visit evening morning talk wedding lesson walk"),
        cues={
            "joy": _words(
                "cheerful smiling laughing glad thrilled jolly merry delighted beaming proud gleeful blissful"
            ),
            "anger": _words("furious shouting cross raging livid hostile bitter fuming outraged irate grumpy seething"),
            "fear": _words(
                "scared trembling nervous panicked worried shaking anxious terrified alarmed uneasy tense timid"
            ),
            "grief": _words(
                "crying tearful mourning lonely gloomy weeping hopeless sorrowful dejected heartsick low numb"
            ),
        },
    ),
    Wording(
        name="riddles",
        category="Entity",
        instruction="What kind of thing is described? ",
        templates=(
            "it has {a} and {b} , it is {n}",
            "a {n} one with {b} beside its {a}",
            "look for {a} , then {b} , quite {n}",
            "{n} , known by its {b} and {a}",
        ),
        neutral=_words("common rare large small grey famous heavy light quiet ordinary typical strange"),
        cues={
            "animal": _words("fur paws whiskers tail claws hooves feathers beak horns snout fins antlers"),
            "plant": _words("petals roots leaves pollen bark stem seeds blossoms thorns sap moss twigs"),
            "vehicle": _words("wheels engine brakes gears headlights clutch tyres bumper exhaust pedals cockpit axle"),
            "building": _words("roof walls windows chimney stairs bricks attic pillars balcony cellar porch gate"),
        },
    ),
)


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


def embedded(limits: Limits = Limits()) -> Stream:
    """The five generated tasks. `limits.seed` also seeds the sentences."""
    return Stream(
        "embedded",
        tuple(
            Task(
                name=w.name,
                category=w.category,
                instruction=w.instruction,
                labels=tuple(w.cues),
                source=f"generated:{w.name}@{limits.seed}",
                load=partial(_load, w, limits.seed),
                limits=limits,
            )
            for w in WORDINGS
        ),
    )


def vocabulary() -> list[str]:
    """Every word that the generated tasks can contain, prompts and labels included, in a fixed order."""
    words: dict[str, None] = {}
    for task, w in zip(embedded().tasks, WORDINGS, strict=True):
        texts = [str(task.prompt(" ")), *w.templates, *w.neutral, *w.cues]
        texts += [word for cues in w.cues.values() for word in cues]
        for text in texts:
            words.update(dict.fromkeys(text.split()))
    return [word for word in words if "{" not in word]
