"""Blocks of a packed corpus as features: light objects, which read their token ids when these are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from methods import NO_CLASS
from orchestrator.models.packing.tokens import PackedTokens

NAMES = ("source", "target", "class_index", "block")


class Block(Mapping[str, Any]):
    """One block, as the feature that `Blocks` makes of it.

    A training set holds one for each block of a corpus, in whatever order a method puts them: so it keeps no token itself.
    """

    __slots__ = ("blocks", "index")

    def __init__(self, blocks: Blocks, index: int) -> None:
        self.blocks = blocks
        self.index = index

    def __getitem__(self, name: str) -> Any:
        if name == "source":
            return self.blocks.source(self.index)
        if name == "target":
            return self.blocks.target(self.index)
        if name == "class_index":
            return NO_CLASS
        if name == "block":
            return [self.blocks.tokens.key, self.index]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)


class Blocks(Sequence[Any]):
    """All blocks of a packed corpus. `source` is what a model reads of one beside its `target`, which it is to predict.

    The field `block` says which block of which packed corpus a feature is.
    """

    def __init__(self, tokens: PackedTokens) -> None:
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [Block(self, number) for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return Block(self, index % len(self))

    def source(self, index: int) -> list[int]:
        """The tokens that are read and not predicted."""
        raise NotImplementedError

    def target(self, index: int) -> list[int]:
        """The tokens that are predicted."""
        raise NotImplementedError


class ContinuedBlocks(Blocks):
    """For a model that continues a text: a block's tokens, behind the one token that stands before the block.

    So each token of the corpus is predicted exactly once. Before the first of all stands `begin`.
    """

    def __init__(self, tokens: PackedTokens, begin: int) -> None:
        super().__init__(tokens)
        self.begin = begin

    def source(self, index: int) -> list[int]:
        before = self.tokens.before(index)
        if before is None:
            before = self.begin
        return [before]

    def target(self, index: int) -> list[int]:
        ids: list[int] = self.tokens.block(index).tolist()
        return ids


class WholeBlocks(Blocks):
    """For a model that fills masks in: a block's tokens between the tokenizer's first and last token of a text."""

    def __init__(self, tokens: PackedTokens, first: int, last: int) -> None:
        super().__init__(tokens)
        self.first = first
        self.last = last

    def source(self, index: int) -> list[int]:
        return [self.first, *self.tokens.block(index).tolist(), self.last]

    def target(self, index: int) -> list[int]:
        return []
