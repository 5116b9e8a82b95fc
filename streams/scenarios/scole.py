"""The SCoLe scenario: a long sequence, each position of which has a few classes that are drawn anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from pydantic import Field

from streams.scenarios.draws import draw, in_drawn_order, weighted_choice
from streams.scenarios.scenario import ScenarioOfOneTask, Seed
from streams.splits import Example, Split
from streams.stream import Stream


class Scole(ScenarioOfOneTask):
    """At each position `classes_per_task` classes are drawn without replacement, and all of their rows are trained on.

    Class c = 0..C-1 is drawn with p_c proportional to (1/C - c f/C)^e, f being `step` and e `entropy_decrease`; which class
    is which c is drawn by the seed. e = 0 draws all alike. (arXiv 2207.04543 normalises before and after the power, which
    changes no probability.) As there, every state is scored on the test split of all classes: so every position shows all
    labels as options, and every column of the accuracy matrix is this one test set, which is scored once a state. AA is then
    the accuracy on all classes after the last position, and average incremental accuracy its mean over positions.

    Left out of the paper's variants: a fixed cycle over combinations, and those that change what is drawn after half of the
    positions, whose beginnings would depend on their length.
    """

    summary: ClassVar[str] = "long: at each position a few classes that are drawn anew"
    paper: ClassVar[str] = "2207.04543"

    name: Literal["scole"] = "scole"
    positions: int = Field(ge=1, le=10_000)
    classes_per_task: int = Field(2, ge=1)
    step: float = Field(0.05, ge=0, description="f: how fast the probabilities fall from class to class")
    entropy_decrease: float = Field(0, ge=0, le=1000, description="e: the power that sharpens them; 0: all alike")
    seed: Seed = 0

    def apply(self, stream: Stream) -> Stream:
        task = self.one_task(stream)
        labels = self.labels_of(stream)
        if self.classes_per_task > len(labels):
            raise self.problem(
                stream, f"classes_per_task: {self.classes_per_task}, but task {task.name!r} has {len(labels)} labels"
            )
        if self.entropy_decrease > 0 and self.step * (len(labels) - 1) >= 1:
            raise self.problem(
                stream,
                f"step: {self.step:g} leaves no probability for some of {len(labels)} labels; less than "
                f"{1 / (len(labels) - 1):g}",
            )
        weights = self._weights(labels)
        tasks = []
        for position in range(1, self.positions + 1):
            drawn = self._drawn(position, weights)
            part = task.part(
                f"{task.name}@{position}",
                WithLabels(frozenset(drawn)),
                # the content goes by one name, so that all positions have one test split
                first_name=task.content_name,
                source=f"{task.source}, classes {', '.join(drawn)}",
            )
            tasks.append(part)
        return replace(stream, tasks=tuple(tasks))

    def _weights(self, labels: Sequence[str]) -> dict[str, float]:
        """What each label's probability of being drawn is proportional to."""
        ranks = in_drawn_order(labels, self.seed, "scole")
        weights = {}
        for label in labels:
            weights[label] = (1 - ranks.index(label) * self.step) ** self.entropy_decrease
        return weights

    def _drawn(self, position: int, weights: dict[str, float]) -> list[str]:
        """The classes of a position, counted from 1: a function of the seed and the position."""
        remaining = dict(weights)
        drawn: list[str] = []
        while len(drawn) < self.classes_per_task:
            # a draw of its own for each class, or the second would follow from the first
            number = draw(self.seed, "scole", position, len(drawn))
            label = list(remaining)[weighted_choice(list(remaining.values()), number)]
            del remaining[label]
            drawn.append(label)
        # as the task lists them
        return sorted(drawn, key=list(weights).index)


@dataclass(frozen=True)
class WithLabels:
    """Chooses the examples to train on by their labels, and of the test split all."""

    labels: frozenset[str]

    def __call__(self, split: Split, examples: Sequence[Example]) -> Sequence[Example]:
        if split == "test":
            return examples
        return [example for example in examples if example.label in self.labels]
