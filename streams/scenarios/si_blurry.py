"""The Si-Blurry scenario: tasks of unequal numbers of classes, with stray rows of other tasks' classes."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from pydantic import Field

from streams.scenarios.draws import draw, in_drawn_order
from streams.scenarios.scenario import ScenarioOfOneTask, Seed
from streams.splits import Example, Split
from streams.stream import Stream
from streams.text import normal_text


class SiBlurry(ScenarioOfOneTask):
    """A share of the classes is disjoint: each is in one task alone. The others are blurry: rows of them stray.

    As in arXiv 2308.09303 and its released code: the disjoint classes are dealt in random, unequal numbers, the blurry ones
    in equal numbers (as near as they go), and a share `blurry` of the blurry rows is moved, to the tasks in random, unequal
    numbers. Each row of the whole is in one task. Our departures: the share is an expected one, since each row's own text
    says whether and where it goes, so that a text that comes twice stays together; no class is dropped to make the numbers
    even; and every task has a class at home, since its test split has to have rows.

    A task's test split has the classes at home there: so the columns of the accuracy matrix are disjoint groups of classes,
    and together all of them. Its options are the labels that its train rows may have.
    """

    summary: ClassVar[str] = "unequal numbers of disjoint and of blurry classes, of which rows stray into other tasks"
    paper: ClassVar[str] = "2308.09303"

    name: Literal["si-blurry"] = "si-blurry"
    num_tasks: int = Field(ge=2)
    disjoint: float = Field(0.5, ge=0, le=1, description="share of the classes that are in one task alone")
    blurry: float = Field(0.1, ge=0, le=1, description="share of the other classes' rows that are moved")
    seed: Seed = 0

    def apply(self, stream: Stream) -> Stream:
        task = self.one_task(stream)
        labels = self.labels_of(stream)
        if self.num_tasks > len(labels):
            raise self.problem(
                stream,
                f"num_tasks: {self.num_tasks}, but task {task.name!r} has {len(labels)} labels, and each task "
                "needs one of its own",
            )
        ordered = in_drawn_order(labels, self.seed, "si-blurry")
        # in hundredths of a thousandth: 0.3 x 10 classes are 3, whatever a float makes of it
        num_disjoint = int(round(self.disjoint * len(labels), 5))
        home_of = self._homes(ordered[:num_disjoint], ordered[num_disjoint:])
        strays = Strays(self.seed, self.blurry, frozenset(ordered[num_disjoint:]), self._cuts("shares"))
        tasks = []
        for index in range(self.num_tasks):
            own = []
            for label in labels:
                may_stray = label in strays.labels and self.blurry > 0
                if home_of[label] == index or may_stray:
                    own.append(label)
            select = InOneTask(index, home_of, strays)
            source = f"{task.source}, si-blurry task {index + 1}"
            tasks.append(task.part(f"{task.name}-{index + 1}", select, labels=tuple(own), source=source))
        return replace(stream, tasks=tuple(tasks))

    def _homes(self, disjoint: Sequence[str], blurry: Sequence[str]) -> dict[str, int]:
        """The task of each label."""
        home_of = {}
        for number, label in enumerate(blurry):
            # where they are fewer than the tasks, one each for the first tasks
            home_of[label] = number * self.num_tasks // max(len(blurry), self.num_tasks)
        without = []
        for index in range(self.num_tasks):
            if index not in home_of.values():
                without.append(index)
        # one for each task that has no blurry class, the rest by cuts at random
        for index, label in zip(without, disjoint, strict=False):
            home_of[label] = index
        rest = disjoint[len(without) :]
        cuts = self._cuts("disjoint")
        for number, label in enumerate(rest):
            home_of[label] = bisect.bisect_right(cuts, (number + 0.5) / len(rest))
        return home_of

    def _cuts(self, what: str) -> tuple[float, ...]:
        """Where the interval from 0 to 1 is cut into a share for each task."""
        cuts = []
        for index in range(self.num_tasks - 1):
            cuts.append(draw(self.seed, "si-blurry", what, index))
        return tuple(sorted(cuts))


@dataclass(frozen=True)
class Strays:
    """Says of a row of a blurry class to which task it is moved."""

    seed: Seed
    share: float
    labels: frozenset[str]
    cuts: tuple[float, ...]
    # asked for by every task, about every row
    _moved: dict[str, int | None] = field(default_factory=dict, compare=False)

    def moved_to(self, text: str) -> int | None:
        """The task to which a row with this text is moved (it may be its own); None where it stays."""
        text = normal_text(text)
        if text not in self._moved:
            target = None
            if draw(self.seed, "si-blurry", "moved", text) < self.share:
                target = bisect.bisect_right(self.cuts, draw(self.seed, "si-blurry", "to", text))
            self._moved[text] = target
        return self._moved[text]


@dataclass(frozen=True)
class InOneTask:
    """Chooses the rows of one task: of the test split, those of its own classes."""

    index: int
    home_of: dict[str, int]
    strays: Strays

    def __call__(self, split: Split, examples: Sequence[Example]) -> Sequence[Example]:
        chosen = []
        for example in examples:
            target = None
            if split != "test" and example.label in self.strays.labels:
                target = self.strays.moved_to(example.text)
            if target is None:
                target = self.home_of[example.label]
            if target == self.index:
                chosen.append(example)
        return chosen
