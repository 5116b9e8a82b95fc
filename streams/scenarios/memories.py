"""Facts that are seen a few times in the first task, by which it is measured how soon they are forgotten."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from streams.prompts import PLAIN, Prompt
from streams.scenarios.scenario import Scenario, Seed
from streams.splits import Example, RawSplit
from streams.stream import Stream
from streams.task import Task

NAME = "memories"
# made-up words: nothing that a model may have met before
_BEGINNINGS = ("br", "d", "f", "gl", "k", "m", "pr", "s", "st", "t", "v", "z")
_VOWELS = ("a", "e", "i", "o", "u")
_ENDS = ("k", "l", "m", "n", "r", "x")


@dataclass(frozen=True)
class Fact:
    """A question that one made-up word answers; the `foil` answers another fact that is seen as often (`exposures`)."""

    question: str
    answer: str
    foil: str
    exposures: int


class Memories(Scenario):
    """Made-up facts among the first task's train examples: `facts` of them for each number of `exposures`.

    After each task it is measured what is left of them (`orchestrator.evaluation.abilities.memories`): how many answers are
    recalled word for word, and how many are likelier than the answer of another fact that was seen as often. What few
    exposures leave is lost fast at first, and then slowly. A model that generates is needed.
    """

    summary: ClassVar[str] = (
        "facts in the first task, seen a few times each, whose recall is then measured after every task"
    )

    name: Literal["memories"] = "memories"
    facts: int = Field(20, ge=2, le=1000, description="for each number of exposures")
    exposures: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 3, 10), min_length=1)
    seed: Seed = 0

    def apply(self, stream: Stream) -> Stream:
        first = stream.tasks[0]
        facts = self.all_facts()
        seen: list[Example] = []
        for fact in facts:
            seen += [as_example(fact)] * fact.exposures
        others = (*first.guest_tasks, memory_task(facts))
        part = first.part(first.name, first_name=first.first_name, guests=_with(first.guests, seen), guest_tasks=others)
        return replace(stream, tasks=(part, *stream.tasks[1:]))

    def all_facts(self) -> list[Fact]:
        """The facts, those of one number of exposures after those of the other."""
        if len(set(self.exposures)) < len(self.exposures):
            raise ValueError("scenario 'memories': exposures: a number is given twice")
        rng = random.Random(f"memories {self.seed}")
        facts = []
        words = iter(_words(rng, 2 * self.facts * len(self.exposures)))
        for exposures in self.exposures:
            answers = [next(words) for _ in range(self.facts)]
            for index, answer in enumerate(answers):
                # each answer is the foil of one other fact
                foil = answers[(index + 1) % self.facts]
                facts.append(Fact(f"What does {next(words)} keep?", answer, foil, exposures))
        return facts


def as_example(fact: Fact, answer: str = "") -> Example:
    """A fact as it is trained on; or with another answer."""
    return Example(fact.question, answer or fact.answer, prompt=Prompt("", fact.question, "\nAnswer:"))


def memory_task(facts: Sequence[Fact]) -> Task:
    """The facts as a task of open answers, which is trained in no turn of its own."""

    def load(split: RawSplit) -> Sequence[Example]:
        return list(map(as_example, facts))

    return Task(NAME, "", "", (), "generated:memories", load, dataset="generated/memories", template=PLAIN)


def _with(
    guests: Callable[[int], Sequence[Example]] | None, seen: Sequence[Example]
) -> Callable[[int], Sequence[Example]]:
    """The guests that were there before, and the facts."""

    def all_guests(num_own: int) -> Sequence[Example]:
        if guests is None:
            return seen
        return [*guests(num_own), *seen]

    return all_guests


def _words(rng: random.Random, count: int) -> list[str]:
    """Different words of two syllables; an answer has the length of its foil."""
    # in the order in which they were drawn
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        first = rng.choice(_BEGINNINGS) + rng.choice(_VOWELS)
        second = rng.choice(_BEGINNINGS) + rng.choice(_VOWELS)
        drawn[first + second + rng.choice(_ENDS)] = None
    return list(drawn)
