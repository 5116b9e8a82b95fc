"""Task: what is learnt at one time, how it is asked and scored, and how its content is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from streams.manifest import FileCheck
from streams.prompts import BENCHMARK, Prompt, PromptTemplate
from streams.rows import UsableRows, usable_rows
from streams.splits import Example, Limits, Objective, RawSplit, Split, carve_dev, in_seeded_order

# how answers were scored in all published results; `streams.scorer_names` has the others
DEFAULT_SCORER = "exact-match"

Kept = TypeVar("Kept")
# gives those of a split's examples that are a task's own, in the order in which they came
Select = Callable[[Split, Sequence[Example]], Sequence[Example]]

# what a part of a task may have otherwise, though both are cut from rows that are read once
CHANGED_BY_PARTS = {"labels", "source", "first_name", "epochs", "guests", "guest_tasks"}


class SealedSplit(ValueError):
    """The test split of a sealed task was asked for: tuning must not see it."""


@dataclass(frozen=True, eq=False)
class Task:
    """A named set of train, dev and test examples with a prompt template and a scorer.

    `load` reads a raw split ("train" or "test") and is called on first use only, so that work which may not see the
    test split never touches it. Rows whose label is not among `labels` are left out and counted in `dropped_rows`. An
    empty label set means open answers: every row is used, and no options are shown.

    `dataset` says which data set this is, wherever it lies (default: the name); `shown_name` is what prompts call it
    (default: the name). `other_labels` are those that the data set has and this task leaves to other tasks: their rows
    are not used, and not counted as dropped either. Where `lists_options` is False the texts themselves say what there is
    to choose from, and no prompt lists it again. A `sealed` task refuses its test split; another one calls
    `on_test_read` once, right before it first gives of that split, whether or not it was loaded before. `check_files`
    compares the files of raw splits with published ones, where the data has any.

    What a scenario makes of a task (see `streams.scenarios`): `select` chooses the task's own among the examples, before
    the caps of `limits`; `guests` gives, for so many train examples, those of other tasks that are trained on with them,
    and `guest_tasks` are the tasks that they come from; `epochs` takes the place of the training's own setting; and
    `first_name` is the name of the task that this one is another occurrence of, whose content it has under its own name.

    What was read and hashed is kept, also for the tasks that `sharing`, `again` and `part` make of this one.
    """

    objective: ClassVar[Objective] = "answer"

    name: str
    category: str
    instruction: str
    labels: tuple[str, ...]
    source: str
    load: Callable[[RawSplit], Sequence[Example]] = field(repr=False)
    limits: Limits = Limits()
    dataset: str = ""
    sealed: bool = False
    on_test_read: Callable[[Task], None] | None = field(default=None, repr=False)
    template: PromptTemplate = BENCHMARK
    scorer: str = DEFAULT_SCORER
    shown_name: str = ""
    other_labels: frozenset[str] = frozenset()
    lists_options: bool = True
    check_files: Callable[[Sequence[RawSplit]], list[FileCheck]] | None = field(default=None, repr=False)
    select: Select | None = field(default=None, repr=False)
    guests: Callable[[int], Sequence[Example]] | None = field(default=None, repr=False)
    guest_tasks: tuple[Task, ...] = field(default=(), repr=False)
    epochs: int | None = None
    first_name: str = ""

    def __post_init__(self) -> None:
        # frozen, so defaults that depend on another field are set past the guard
        object.__setattr__(self, "dataset", self.dataset or self.name)
        object.__setattr__(self, "shown_name", self.shown_name or self.name)
        # the options are listed to the model, and a label twice would be twice as likely to be copied
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"task {self.name!r}: the label set names a label twice ({self.source})")

    def sharing(self, **changes: Any) -> Task:
        """The same task, sealed, watched or scored otherwise, which reads and hashes nothing anew that either of them has read.

        Its own reading of the test split is told as if nothing had been read.
        """
        assert changes.keys() <= {"sealed", "on_test_read", "scorer"}, "what is kept depends on all else"
        return self._with_kept(replace(self, **changes), "_kept")

    def again(self, name: str) -> Task:
        """Another occurrence of the task, of the same content and under another name."""
        return self._with_kept(replace(self, name=name, first_name=self.content_name), "_kept")

    @property
    def content_name(self) -> str:
        """The name that the task's content has in hashes: its own, or of a later occurrence that of the first."""
        return self.first_name or self.name

    def part(self, name: str, select: Select | None = None, **changes: Any) -> Task:
        """A task of the chosen ones among this one's examples; of the labels that it is given, or of all of them.

        An example is in train, dev or test here as it is there, so that no part trains on what another is scored on.
        """
        assert changes.keys() <= CHANGED_BY_PARTS, "the rows that are read depend on all else"
        if select is None:
            select = self.select
        elif self.select is not None:
            select = _one_after_the_other(self.select, select)
        changes = {"first_name": "", **changes}
        return self._with_kept(replace(self, name=name, select=select, **changes))

    def _with_kept(self, other: Task, *what: str) -> Task:
        """The other task, which finds what this one has read, and the other way round."""
        for name in ("_origin", "_rows", *what):
            object.__setattr__(other, name, getattr(self, name))
        return other

    @property
    def answered(self) -> Task:
        """The task whose answers are scored: this one."""
        return self

    @cached_property
    def _origin(self) -> Task:
        """The task whose rows are read, of which this one may be a part: its labels say which rows are used."""
        return self

    @cached_property
    def _rows(self) -> dict[str, Any]:
        """What was read, before any choice among the examples."""
        return {}

    @cached_property
    def _kept(self) -> dict[str, Any]:
        """What was chosen and hashed, by what it is."""
        return {}

    def read(self, split: Split) -> tuple[Example, ...]:
        """The examples of a split, in a fixed order. Raises ValueError where there are none."""
        if split == "test":
            examples = self._test
        elif split == "train":
            examples = self._train_and_dev[0]
        else:
            examples = self._train_and_dev[1]
        if not examples:
            raise ValueError(f"task {self.name!r}: the {split} split is empty{self._why_empty(split)} ({self.source})")
        return examples

    def size(self, split: Split) -> int:
        """How many examples a split has. Raises ValueError where there are none."""
        return len(self.read(split))

    def _why_empty(self, split: Split) -> str:
        """What is wrong with labels that leave no row of a split to use; empty where something else left none."""
        rows = self._raw_train
        if split == "test":
            rows = self._raw_test
        # rows that are used, but held out as the other one of train and dev
        if rows.examples or rows.first_dropped is None:
            return ""
        first = rows.first_dropped
        return (
            f": all of its {rows.num_dropped} rows have a label outside the label set, such as {first.label!r} in row "
            f"{first.row}; the label set is {', '.join(map(repr, self.labels))}"
        )

    @property
    def _raw_train(self) -> UsableRows:
        return _keep(self._rows, "raw train", lambda: self._origin._usable("train"))

    @property
    def _raw_test(self) -> UsableRows:
        self._open_test()
        return _keep(self._rows, "raw test", lambda: self._origin._usable("test"))

    def _open_test(self) -> None:
        """Refuse the test split if it is sealed, and else tell once that it is read."""
        if self.sealed:
            raise SealedSplit(f"task {self.name!r}: the test split is sealed while tuning")
        # before the rows are loaded: a reading that fails half-way was a reading
        if self.on_test_read is not None and "_has_told" not in self.__dict__:
            object.__setattr__(self, "_has_told", True)
            self.on_test_read(self)

    @property
    def _train_and_dev(self) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
        limits = self.limits

        def choose() -> tuple[tuple[Example, ...], tuple[Example, ...]]:
            # carved before the choice, so that parts with an example in common have it in the same split
            train, dev = _keep(
                self._rows, "carved", lambda: carve_dev(self._raw_train.examples, limits.dev_fraction, limits.seed)
            )
            own = tuple(self._own("train", train)[: limits.max_train])
            if self.guests is not None:
                own += tuple(self.guests(len(own)))
            return own, tuple(self._own("dev", dev)[: limits.max_dev])

        return _keep(self._kept, "train and dev", choose)

    @property
    def _test(self) -> tuple[Example, ...]:
        raw = self._raw_test

        def choose() -> tuple[Example, ...]:
            ordered = _keep(self._rows, "ordered test", lambda: in_seeded_order(raw.examples, self.limits.seed))
            return tuple(self._own("test", ordered)[: self.limits.max_test])

        return _keep(self._kept, "test", choose)

    def _own(self, split: Split, examples: Sequence[Example]) -> Sequence[Example]:
        """Those of a split's examples that are this task's."""
        if self.select is None:
            return examples
        return self.select(split, examples)

    def _usable(self, split: RawSplit) -> UsableRows:
        return usable_rows(self.load(split), self.name, self.labels, self.other_labels, self.limits)

    @property
    def has_dev(self) -> bool:
        """Whether anything was held out of train."""
        return bool(self._train_and_dev[1])

    def dropped_rows(self, split: RawSplit) -> int:
        """How many rows of the raw split have a label outside the label set."""
        return sum(self.dropped_labels(split).values())

    def dropped_labels(self, split: RawSplit) -> dict[str, int]:
        """How many rows of the raw split have each label outside the label set, the most frequent first."""
        if split == "train":
            rows = self._raw_train
        else:
            rows = self._raw_test
        return dict(rows.dropped_labels.most_common())

    @cached_property
    def _prompt_fields(self) -> dict[str, str]:
        options = ""
        if self.lists_options:
            options = ", ".join(self.labels)
        # the published prompt shows the task's name as the data set
        return {
            "instruction": self.instruction,
            "options": options,
            "category": self.category,
            "dataset": self.shown_name,
        }

    def prompt(self, text: str) -> Prompt:
        """What a model that reads prompts reads for a text, by the task's template."""
        return self.template.render(text, self._prompt_fields)

    @property
    def train_hash(self) -> str:
        """SHA-256 of all that training on this task can see: wording, labels and train examples, in order."""
        return self.split_hash("train")

    @property
    def test_hash(self) -> str:
        """SHA-256 of all that scoring on this task can see. Reads the test split."""
        return self.split_hash("test")

    def split_hash(self, split: Split) -> str:
        """SHA-256 of wording, labels and the examples of a split. Keys of stored checkpoints are made of it."""
        examples = self.read(split)
        return _keep(self._kept, f"hash of {split}", lambda: self._hash(examples))

    def _hash(self, examples: Sequence[Example]) -> str:
        wording: list[object] = [self.content_name, self.category, self.instruction, list(self.labels)]
        # templates came later than the first stored checkpoints: the one that those were trained on adds nothing
        if self.template.segments != BENCHMARK.segments:
            wording.append(list(self.template.segments))
        # the same holds for a name that is shown instead of the task's own
        if self.shown_name != self.content_name:
            wording.append(["shown as", self.shown_name])
        if not self.lists_options:
            wording.append("options in the text")
        rows = list(map(_content_of, examples))
        return hashlib.sha256(json.dumps([wording, rows]).encode()).hexdigest()


def _one_after_the_other(first: Select, second: Select) -> Select:
    """A choice among the examples that were chosen already."""
    return lambda split, examples: second(split, first(split, examples))


def _content_of(example: Example) -> list[str]:
    """What a model can see of an example: its text and label, and of a guest how its own task asks."""
    content = [example.text, example.label]
    if example.prompt is not None:
        content += [example.prompt.prefix, example.prompt.suffix]
    return content


def _keep(kept: dict[str, Any], what: str, make: Callable[[], Kept]) -> Kept:
    if what not in kept:
        kept[what] = make()
    found: Kept = kept[what]
    return found
