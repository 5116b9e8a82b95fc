"""Test splits as token ids, kept in a process, so that the states of a sequence are scored on texts that are tokenised once."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from orchestrator.models.family import Family, Feature
from streams import Example, Split, Task

# 32 bits a token: 64 MiB, which is several times all test texts of the 15 tasks of the public benchmark
MOST_TOKENS = 2**24

# What a batch has at most, with its padding, where a CPU computes it: beyond, activations fall out of its caches. A GPU is the
# faster the more it has, so there the number of examples is the only limit.
TOKENS_ON_CPU = 4096


@dataclass(frozen=True)
class Texts:
    """The examples of a split as token ids, packed: a list of Python's numbers takes nine times as much."""

    sources: tuple[array[int], ...]
    targets: tuple[array[int], ...]
    class_indices: tuple[int, ...]

    @staticmethod
    def packed(features: Sequence[Feature]) -> Texts:
        """The token ids of examples."""
        sources = []
        targets = []
        class_indices = []
        for feature in features:
            sources.append(array("i", feature["source"]))
            targets.append(array("i", feature["target"]))
            class_indices.append(feature["class_index"])
        return Texts(tuple(sources), tuple(targets), tuple(class_indices))

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def lengths(self) -> list[int]:
        """The source tokens of each example."""
        return list(map(len, self.sources))

    def feature(self, index: int) -> Feature:
        """One example, as a family takes it."""
        return {
            "source": self.sources[index].tolist(),
            "target": self.targets[index].tolist(),
            "class_index": self.class_indices[index],
        }

    @property
    def num_tokens(self) -> int:
        """The tokens of all examples."""
        return sum(map(len, self.sources)) + sum(map(len, self.targets))


class KeptTexts:
    """Tokenised splits by all that their token ids depend on. Past `most_tokens`, those unused for longest are dropped."""

    def __init__(self, most_tokens: int = MOST_TOKENS) -> None:
        self.most_tokens = most_tokens
        self.num_tokens = 0
        self._kept: OrderedDict[Hashable, Texts] = OrderedDict()

    def texts(self, family: Family, task: Task, split: Split, examples: Sequence[Example]) -> Texts:
        """The examples of a task's split as a family reads them: tokenised now, or kept from before."""
        key = _key(family, task, split)
        texts = self._kept.get(key)
        if texts is not None:
            self._kept.move_to_end(key)
            return texts
        texts = Texts.packed(family.features(task, examples))
        self._kept[key] = texts
        self.num_tokens += texts.num_tokens
        while self.num_tokens > self.most_tokens:
            _, dropped = self._kept.popitem(last=False)
            self.num_tokens -= dropped.num_tokens
        return texts


def _key(family: Family, task: Task, split: Split) -> Hashable:
    """What the token ids of a split depend on: the tokenizer, the settings of reading, the stream's labels, the content."""
    reading = (family.config.input, family.config.max_source, family.config.max_target)
    return type(family), family.source.identity, reading, family.labels, task.split_hash(split)


# of the process: whoever scores here, by whichever sequence, reads the same texts
KEPT = KeptTexts()


def batches_by_length(lengths: Sequence[int], most_examples: int, on_cpu: bool) -> Iterator[list[int]]:
    """The indices of examples in batches, from the shortest to the longest, so that little of a batch is padding.

    No batch has more than `most_examples`; on a CPU, long examples are fewer at a time (see `TOKENS_ON_CPU`).
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        # the longest of its batch so far, to whose length the others are padded
        num_tokens = (len(batch) + 1) * lengths[index]
        is_full = len(batch) == most_examples or (on_cpu and num_tokens > TOKENS_ON_CPU)
        if batch and is_full:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
