"""A corpus: a task whose texts are modelled as they are, where nothing is asked and nothing is answered.

Its documents are streamed: whoever reads a split holds one document at a time, whatever the size of the whole.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn

from streams.splits import Example, Limits, Objective, RawSplit, Split
from streams.task import Select, Task
from streams.text import seeded_rank

Read = Callable[[], Iterable[str]]

# sixteen hexadecimal digits of a rank
_RANKS = 16**16


@dataclass(frozen=True)
class Contents:
    """What one pass over a split finds: the hash of its documents in order, their number and their bytes in UTF-8."""

    sha256: str
    num_documents: int
    num_bytes: int


@dataclass(frozen=True)
class Mixture:
    """What streams a general corpus's documents, and which share of the bytes of a mixed train split they are."""

    read: Read = field(repr=False)
    share: float


@dataclass(frozen=True)
class EndTask:
    """A task with labels on which a copy of a state is fine-tuned, to see what was learnt from a corpus; and how it is.

    AdamW with a rate that falls linearly to 0 over all `epochs`, in batches of `batch`.
    """

    task: Task
    epochs: int
    batch: int
    lr: float
    weight_decay: float

    @property
    def settings(self) -> list[float]:
        """What the score depends on beside the examples."""
        return [self.epochs, self.batch, self.lr, self.weight_decay]


@dataclass(frozen=True, eq=False, kw_only=True)
class Corpus(Task):
    """A task of documents. Each function in `parts` streams those of a split, in a fixed order; train is always there.

    Where there is none for test, documents are held out of train: a share of `test_fraction`, and where there is none for
    dev, `limits.dev_fraction` of the others. Which they are depends on the seed and each document's own text alone, so that
    equal texts share a split and no pass has to know how many there are; the share is met on average. `limits.max_*` take a
    split's first documents.

    `mixture` streams documents of a general corpus that are mixed into train.

    A corpus with an `end_task` is scored by that one: its dev and test splits are the end task's, and all documents are trained
    on.
    """

    objective: ClassVar[Objective] = "text"

    parts: Mapping[Split, Read] = field(repr=False)
    test_fraction: float = 0.05
    end_task: EndTask | None = None
    mixture: Mixture | None = None

    @property
    def answered(self) -> Task:
        """The task whose answers are scored: the end task, where there is one."""
        if self.end_task is None:
            return self
        return self.end_task.task.sharing(scorer=self.scorer, on_test_read=self._note_test_read)

    def _note_test_read(self, task: Task) -> None:
        # refused where the corpus is sealed, and told once, however often the end task is asked for
        self._open_test()

    def documents(self, split: Split) -> Iterator[str]:
        """The documents of a split, one at a time, in a fixed order."""
        if split == "test":
            self._open_test()
        most = {"train": self.limits.max_train, "dev": self.limits.max_dev, "test": self.limits.max_test}[split]
        chosen = itertools.islice(self._chosen(split), most)
        if split == "train" and self.mixture is not None:
            return self._mixed(chosen, self.mixture)
        return chosen

    def _mixed(self, own: Iterable[str], mixture: Mixture) -> Iterator[str]:
        """The corpus's own documents in their order, each followed by what is to keep the share of bytes.

        Raises ValueError where the general corpus is too small.
        """
        guests = filter(self.limits.keeps, mixture.read())
        num_own = 0
        num_guest = 0
        for document in own:
            yield document
            num_own += len(document.encode())
            while num_guest * (1 - mixture.share) < num_own * mixture.share:
                guest = next(guests, None)
                if guest is None:
                    raise ValueError(
                        f"task {self.name!r}: mixture: the general corpus is too small: after all of its {num_guest} bytes, a "
                        f"share of {mixture.share:g} beside {num_own} bytes of the task's own takes more ({self.source})"
                    )
                yield guest
                num_guest += len(guest.encode())

    def unchanged_documents(self, split: Split) -> Iterator[str]:
        """The documents of a split once more, for what is kept under its hash.

        Raises ValueError behind the last one where they are no longer those of the hash.
        """
        expected = self.split_hash(split)
        digest = _Digest()
        for document in self.documents(split):
            digest.add(document)
            yield document
        if digest.contents().sha256 != expected:
            raise ValueError(
                f"task {self.name!r}: the {split} split has changed since it was planned with ({self.source})"
            )

    def _chosen(self, split: Split) -> Iterator[str]:
        if split in self.parts:
            chosen = self.parts[split]
        else:
            # held out of train
            chosen = self.parts["train"]
        is_shared = chosen is self.parts["train"]
        for text in chosen():
            if self.limits.keeps(text) and (not is_shared or self._split_of(text) == split):
                yield text

    def _split_of(self, text: str) -> Split:
        """The split to which a document of the train files belongs."""
        if self.end_task is not None:
            return "train"
        rank = seeded_rank(text, self.limits.seed)
        # two numbers of one hash: the share of dev is one of what test leaves
        if "test" not in self.parts and int(rank[:16], 16) < self.test_fraction * _RANKS:
            return "test"
        if "dev" not in self.parts and int(rank[16:32], 16) < self.limits.dev_fraction * _RANKS:
            return "dev"
        return "train"

    def contents(self, split: Split) -> Contents:
        """What a split holds, found in one pass. Raises ValueError where it is empty."""
        # before what is kept is looked up: a sealed split stays so though another task has read it
        if split == "test":
            self._open_test()
        contents = self._found(split)
        if not contents.num_documents:
            raise ValueError(f"task {self.name!r}: the {split} split is empty{self._why_none(split)} ({self.source})")
        return contents

    def _found(self, split: Split) -> Contents:
        what = f"contents of {split}"
        if what not in self._kept:
            self._kept[what] = _contents(self.documents(split))
        found: Contents = self._kept[what]
        return found

    def _why_none(self, split: Split) -> str:
        if split == "test" and "test" not in self.parts:
            return (
                f": none of its documents was held out, a share of {self.test_fraction:g}; give `test` files or a "
                "greater test_fraction"
            )
        return ""

    def size(self, split: Split) -> int:
        if split != "train" and self.end_task is not None:
            return self.answered.size(split)
        return self.contents(split).num_documents

    def split_hash(self, split: Split) -> str:
        if split != "train" and self.end_task is not None:
            task = self.answered
            parts = [task.train_hash, task.split_hash(split), self.end_task.settings]
            return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return self.contents(split).sha256

    @property
    def has_dev(self) -> bool:
        if self.end_task is not None:
            return self.end_task.task.has_dev
        if "dev" not in self.parts and not self.limits.dev_fraction:
            return False
        return self._found("dev").num_documents > 0

    def read(self, split: Split) -> NoReturn:
        """A corpus has no examples: raises ValueError."""
        raise ValueError(f"task {self.name!r} is a corpus: it has documents, and no examples with a label")

    def part(self, name: str, select: Select | None = None, **changes: Any) -> NoReturn:
        """A corpus is learnt as a whole: raises ValueError."""
        raise ValueError(
            f"task {self.name!r} is a corpus: no scenario that chooses among examples or mixes some in goes with it"
        )

    def dropped_labels(self, split: RawSplit) -> dict[str, int]:
        """Those of the end task's rows; no document has a label that could be a wrong one."""
        if split == "train" or self.end_task is None:
            return {}
        return self.answered.dropped_labels(split)


def corpus(
    name: str,
    source: str,
    parts: Mapping[Split, Read],
    limits: Limits = Limits(),
    test_fraction: float = 0.05,
    dataset: str = "",
    end_task: EndTask | None = None,
    mixture: Mixture | None = None,
) -> Corpus:
    """A corpus by its name and what streams its documents."""
    scorer = "perplexity"
    if end_task is not None:
        scorer = "macro-f1"
    return Corpus(
        name=name,
        category="",
        instruction="",
        labels=(),
        source=source,
        load=_no_examples,
        limits=limits,
        dataset=dataset,
        scorer=scorer,
        parts=parts,
        test_fraction=test_fraction,
        end_task=end_task,
        mixture=mixture,
    )


def _no_examples(split: RawSplit) -> Sequence[Example]:
    raise AssertionError("a corpus is read by its documents")


class _Digest:
    """Takes documents one by one, for their `Contents`."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256(b"corpus\n")
        self.num_documents = 0
        self.num_bytes = 0

    def add(self, document: str) -> None:
        encoded = document.encode()
        # the length first, so that no two ways to cut one text have one hash
        self.sha256.update(len(encoded).to_bytes(8))
        self.sha256.update(encoded)
        self.num_documents += 1
        self.num_bytes += len(encoded)

    def contents(self) -> Contents:
        return Contents(self.sha256.hexdigest(), self.num_documents, self.num_bytes)


def _contents(documents: Iterable[str]) -> Contents:
    digest = _Digest()
    for document in documents:
        digest.add(document)
    return digest.contents()
