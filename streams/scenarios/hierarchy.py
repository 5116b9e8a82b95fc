"""The HLE scenario: coarse labels first, which finer ones take the place of level by level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from streams.names import unknown_name
from streams.scenarios.draws import draw, in_drawn_order
from streams.scenarios.scenario import ScenarioOfOneTask, Seed
from streams.scorer_names import check_labels
from streams.splits import Example, RawSplit, Split
from streams.stream import Stream
from streams.task import Task
from streams.text import normal_text


class Hierarchy(ScenarioOfOneTask):
    """One task of the coarsest labels, then the labels below them, level by level, down to the data's own.

    `hierarchy` maps each coarse label to a list of the data's labels, or to a mapping again for more levels; every label
    of the data is in it once, and all at one depth. A level comes in `expansions` tasks, each of which brings what is below some
    of the labels above, in the order that `seed` draws. As in arXiv 2308.14374, rows are `disjoint` (each is trained on at
    one level, which its own text says) or `overlapping` (at every level). Test splits are never divided by level: each task is
    scored on all test rows of its labels, as that level calls them. The paper's memory and its pseudo-labels are a method's
    affair, and its single pass is `training.epochs: 1`.
    """

    summary: ClassVar[str] = "coarse labels first, then finer ones, by a hierarchy that is given"
    paper: ClassVar[str] = "2308.14374"

    name: Literal["hierarchy"] = "hierarchy"
    hierarchy: dict[str, Any]
    expansions: int = Field(1, ge=1, description="the tasks in which a finer level comes")
    data: Literal["disjoint", "overlapping"] = "disjoint"
    seed: Seed = 0

    @field_validator("hierarchy")
    @classmethod
    def _is_hierarchy(cls, value: dict[str, Any]) -> dict[str, Any]:
        paths = _paths(value)
        depths = sorted({len(path) for path in paths})
        if len(depths) != 1:
            raise ValueError(f"its labels are at different depths: {', '.join(map(str, depths))}")
        # the place of a label is the way to it; at two of them, it would be one label to a classifier
        place_of: dict[str, tuple[str, ...]] = {}
        for path in paths:
            if paths.count(path) > 1:
                raise ValueError(f"the label {path[-1]!r} is at two places")
            for level, label in enumerate(path):
                if place_of.setdefault(label, path[:level]) != path[:level]:
                    raise ValueError(f"the label {label!r} is at two places")
        return value

    def apply(self, stream: Stream) -> Stream:
        task = self.one_task(stream)
        paths = _paths(self.hierarchy)
        self._check(stream, task, paths)
        tasks = []
        for level in range(len(paths[0])):
            # what this level calls each of the data's own labels
            called = {}
            for path in paths:
                called[path[-1]] = path[level]
            labels = tuple(dict.fromkeys(path[level] for path in paths))
            name = f"{task.name}-level{level + 1}"
            relabelled = replace(task, name=name, labels=labels, load=Relabelled(task, called), first_name="")
            check_labels(relabelled)
            for number, group in enumerate(self._groups(stream, paths, level), start=1):
                part_name = name
                if level > 0 and self.expansions > 1:
                    part_name = f"{name}-{number}"
                select = AtLevel(frozenset(group), level, len(paths[0]), self.seed, self.data == "disjoint")
                tasks.append(relabelled.part(part_name, select, labels=group))
        return replace(stream, tasks=tuple(tasks))

    def _check(self, stream: Stream, task: Task, paths: Sequence[tuple[str, ...]]) -> None:
        """Raises ValueError where the hierarchy's finest labels are not the task's."""
        if task.select is not None or task.guests is not None:
            raise self.problem(stream, "it gives other labels, so it comes before the scenarios that choose rows")
        finest = [path[-1] for path in paths]
        for label in finest:
            if label not in task.labels:
                raise self.problem(stream, "hierarchy: " + unknown_name("label", label, task.labels))
        for label in task.labels:
            if label not in finest:
                raise self.problem(stream, f"hierarchy: the label {label!r} of task {task.name!r} is not in it")

    def _groups(self, stream: Stream, paths: Sequence[tuple[str, ...]], level: int) -> list[tuple[str, ...]]:
        """The labels of each task of a level."""
        # above the coarsest there is nothing that could bring them in turn
        if level == 0:
            return [tuple(dict.fromkeys(path[0] for path in paths))]
        parents = list(dict.fromkeys(path[level - 1] for path in paths))
        if self.expansions > len(parents):
            raise self.problem(stream, f"expansions: {self.expansions}, but level {level} has {len(parents)} labels")
        drawn = in_drawn_order(parents, self.seed, "hierarchy", level)
        groups = []
        for number in range(self.expansions):
            start = number * len(drawn) // self.expansions
            end = (number + 1) * len(drawn) // self.expansions
            below = [path[level] for path in paths if path[level - 1] in drawn[start:end]]
            groups.append(tuple(dict.fromkeys(below)))
        return groups


def _paths(hierarchy: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The way from a coarsest label to each of the data's own."""
    paths: list[tuple[str, ...]] = []
    for label, below in hierarchy.items():
        if isinstance(below, Mapping) and below:
            for path in _paths(below):
                paths.append((label, *path))
        elif isinstance(below, list | tuple) and below and all(isinstance(finest, str) for finest in below):
            for finest in below:
                paths.append((label, finest))
        else:
            raise ValueError(f"below {label!r} expected a list of labels or a mapping of labels, found {below!r}")
    if not paths:
        raise ValueError("expected a mapping of coarse labels to finer ones, found none")
    return paths


@dataclass(frozen=True)
class Relabelled:
    """Loads the rows of a task with other labels; a label that is not named stays."""

    task: Task
    called: dict[str, str]

    def __call__(self, split: RawSplit) -> Sequence[Example]:
        rows = []
        for row in self.task.load(split):
            # the label of another task's row stays what that task's rows are known by
            rows.append(replace(row, label=self.called.get(row.label, row.label)))
        return rows


@dataclass(frozen=True)
class AtLevel:
    """Chooses the rows of some labels; of train and dev, where levels are disjoint, those of one level."""

    labels: frozenset[str]
    level: int
    count: int
    seed: Seed
    is_disjoint: bool

    def __call__(self, split: Split, examples: Sequence[Example]) -> Sequence[Example]:
        chosen = []
        for example in examples:
            if example.label in self.labels and (split == "test" or self._has(example)):
                chosen.append(example)
        return chosen

    def _has(self, example: Example) -> bool:
        if not self.is_disjoint:
            return True
        drawn = draw(self.seed, "hierarchy", "level", normal_text(example.text))
        return int(drawn * self.count) == self.level
