"""A batch: named token streams, each with its own mask, and what a method may know about the step that it belongs to.

Shapes: B examples, S tokens of the longest one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

IGNORED = -100  # torch's label for "not asked"
NO_CLASS = -1  # the class of an example whose task has no label set

StreamName = Literal["source", "target", "options"]


@dataclass(frozen=True)
class TokenStream:
    """Token ids [B, S] with their mask [B, S]: 1 for a real token, 0 for padding."""

    ids: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> TokenStream:
        """The same on a device."""
        return self.each(lambda tensor: tensor.to(device, non_blocking=True))

    def each(self, change: Callable[[Tensor], Tensor]) -> TokenStream:
        """The same with both tensors changed."""
        return TokenStream(change(self.ids), change(self.mask))

    def select(self, examples: slice) -> TokenStream:
        """Some of its examples."""
        return TokenStream(self.ids[examples], self.mask[examples])


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The micro-batch that a model reads, with its share of the step that it is part of.

    `source` is what every model reads; a decoder reads the text and its answer there. `target` is what the decoder of an
    encoder-decoder reads. `options` are the label texts that a sentence encoder compares texts with: the same in every
    micro-batch of a step, they belong to no example.

    `labels` is [B] for a classifier. For a language model it holds the answer's tokens beside the stream that predicts them,
    `target` or else `source`, and IGNORED elsewhere; `answers` [N] says where they are among all entries of `labels`, and
    `first_answer` is the first column that has one (both are found from the labels). `classes` [B] says which label of the
    stream of tasks, in order of first appearance, each example has; NO_CLASS where its task has no label set.

    `loss_weight` is the micro-batch's share of the global batch. Over all micro-batches and workers it sums to 1, so a
    penalty that is added in `after_forward` is weighted by it. `loss_denominator` is what a sum over the micro-batch's
    answer tokens (or examples) is divided by to become a share of the global mean. `num_old_classes` is how many leading
    columns of the logits earlier tasks have trained; None where all columns belong to every task (a vocabulary).
    `example_indices` numbers the examples in the order of the pass that the batch is part of, over all workers; it is empty
    in training.
    """

    source: TokenStream
    labels: Tensor
    classes: Tensor
    target: TokenStream | None = None
    options: TokenStream | None = None
    loss_weight: float = 1.0
    loss_denominator: int = 1
    num_old_classes: int | None = None
    example_indices: list[int] = field(default_factory=list)
    answers: Tensor | None = None
    first_answer: int = 0

    def __post_init__(self) -> None:
        if self.labels.ndim < 2 or self.answers is not None:
            return
        # found once, where the batch is made: on a GPU, asking which labels there are means waiting for it
        answers_N = (self.labels != IGNORED).flatten().nonzero().flatten()
        columns_N = answers_N % self.labels.shape[1]
        object.__setattr__(self, "answers", answers_N)
        object.__setattr__(self, "first_answer", int(columns_N.min()) if len(columns_N) else 0)

    def token_streams(self) -> Iterator[tuple[StreamName, TokenStream]]:
        """The token streams that the batch has, by name."""
        yield "source", self.source
        if self.target is not None:
            yield "target", self.target
        if self.options is not None:
            yield "options", self.options

    def stream(self, name: StreamName) -> TokenStream:
        """The token stream of that name. Raises KeyError where the batch has none."""
        return dict(self.token_streams())[name]

    @property
    def answer_in_source(self) -> bool:
        """Whether the source holds the answer behind the text, as a decoder's does."""
        # a classifier's labels, [B], lie beside no token
        return self.target is None and self.labels.ndim > 1

    def text_mask(self) -> Tensor:
        """[B, S]: 1 on the source's tokens without padding and without the answer."""
        # every answer token has a label, and only they have one
        if self.answer_in_source:
            return self.source.mask * (self.labels == IGNORED)
        return self.source.mask

    def answer_tokens(self) -> Tensor:
        """[N]: the labels that the loss asks for, in order; of a classifier all, one for each example."""
        if self.answers is None:
            return self.labels
        return self.labels.flatten().index_select(0, self.answers)

    def answers_by_example(self) -> list[int]:
        """How many of the loss's labels each example has."""
        if self.answers is None:
            return [1] * len(self.labels)
        counts: list[int] = (self.labels != IGNORED).sum(1).tolist()
        return counts

    def pinned(self) -> Batch:
        """The same in memory from which a GPU copies by itself."""
        return self._each(torch.Tensor.pin_memory)

    def to(self, device: torch.device) -> Batch:
        """The same with all tensors on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same with every tensor changed."""
        target = self.target
        if target is not None:
            target = target.each(change)
        options = self.options
        if options is not None:
            options = options.each(change)
        answers = self.answers
        if answers is not None:
            answers = change(answers)
        return self.replace(
            source=self.source.each(change),
            labels=change(self.labels),
            answers=answers,
            classes=change(self.classes),
            target=target,
            options=options,
        )

    def select(self, examples: slice) -> Batch:
        """Some of its examples. What belongs to no single one of them (the options, the numbers) stays."""
        target = self.target
        if target is not None:
            target = target.select(examples)
        return self.replace(
            source=self.source.select(examples),
            labels=self.labels[examples],
            classes=self.classes[examples],
            target=target,
            example_indices=self.example_indices[examples],
        )

    def replace(self, **changes: Any) -> Batch:
        """The same but for some fields."""
        if "labels" in changes and "answers" not in changes:
            # other labels lie elsewhere
            changes["answers"] = None
        return replace(self, **changes)
