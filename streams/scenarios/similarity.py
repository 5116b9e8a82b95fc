"""The tasks of a stream ordered by how alike their texts are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from streams.scenarios.scenario import Scenario
from streams.stream import Stream
from streams.text import bare_text

Vector = dict[str, float]


class BySimilarity(Scenario):
    """The tasks in an order that goes by the likeness of their train texts, from `start` on (default: the first task).

    The likeness of two tasks is the cosine of their TF-IDF vectors: how often a word comes in the first `rows` train texts of
    a task, times ln(n / d) + 1, where d of the stream's n tasks have the word. `nearest-next` goes on with the task that is
    most like the one before, `farthest-next` with the one that is least; `near-to-far` and `far-to-near` order all of them
    by their likeness to the start. Of equally like ones the first in the stream comes first. Train splits are read for it,
    and no other.
    """

    summary: ClassVar[str] = "the tasks ordered by the likeness of their train texts"

    name: Literal["similarity"] = "similarity"
    order: Literal["nearest-next", "farthest-next", "near-to-far", "far-to-near"] = "nearest-next"
    start: str | None = Field(None, description="the task that comes first")
    rows: int = Field(1000, ge=1, description="how many train texts of each task are looked at")

    def apply(self, stream: Stream) -> Stream:
        first = 0
        if self.start is not None:
            first = stream.tasks.index(self.task_of(stream, self.start))
        texts = []
        for task in stream.tasks:
            examples = task.read("train")[: self.rows]
            texts.append([example.text for example in examples])
        vectors = tf_idf(texts)

        def likeness(one: int, other: int) -> float:
            # rounded, so that no machine's last bit decides which of two comes first
            return round(cosine(vectors[one], vectors[other]), 9)

        order = self._order(first, len(stream.tasks), likeness)
        return replace(stream, tasks=tuple(map(stream.tasks.__getitem__, order)))

    def _order(self, first: int, count: int, likeness: Callable[[int, int], float]) -> list[int]:
        """The indices of all tasks, the first of which is given."""
        nearest_first = self.order in ("nearest-next", "near-to-far")
        is_chain = self.order in ("nearest-next", "farthest-next")
        order = [first]
        remaining = list(range(count))
        remaining.remove(first)
        while remaining:
            compared_with = order[0]
            if is_chain:
                compared_with = order[-1]
            # both take the first of equally like ones
            if nearest_first:
                chosen = max(remaining, key=lambda index: likeness(compared_with, index))
            else:
                chosen = min(remaining, key=lambda index: likeness(compared_with, index))
            order.append(chosen)
            remaining.remove(chosen)
        return order


def tf_idf(documents: Sequence[Sequence[str]]) -> list[Vector]:
    """The TF-IDF vector of each document, which is given as its texts: count x (ln(n / d) + 1)."""
    counts = []
    num_documents_with: Counter[str] = Counter()
    for texts in documents:
        words: Counter[str] = Counter()
        for text in texts:
            words.update(bare_text(text).split())
        counts.append(words)
        num_documents_with.update(words.keys())
    vectors = []
    for words in counts:
        vector = {}
        for word, count in words.items():
            vector[word] = count * (math.log(len(documents) / num_documents_with[word]) + 1)
        vectors.append(vector)
    return vectors


def cosine(one: Vector, other: Vector) -> float:
    """The cosine of two vectors; 0 where one of them is empty."""
    lengths = math.hypot(*one.values()) * math.hypot(*other.values())
    if lengths == 0:
        return 0.0
    product = 0.0
    for word, value in one.items():
        product += value * other.get(word, 0.0)
    return product / lengths
