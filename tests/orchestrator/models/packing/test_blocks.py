"""Blocks as features: light, read when asked for, and each token predicted once."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from methods import NO_CLASS
from orchestrator.models.packing.blocks import Block, ContinuedBlocks, WholeBlocks
from orchestrator.models.packing.tokens import PackedTokens


@pytest.fixture
def tokens(tmp_path: Path) -> PackedTokens:
    """Eleven tokens in blocks of four."""
    ids = np.arange(100, 111, dtype="uint16")
    ids.tofile(tmp_path / "tokens.bin")
    np.save(tmp_path / "block_crc.npy", [zlib.crc32(ids[first : first + 4].tobytes()) for first in (0, 4, 8)])
    return PackedTokens("key", tmp_path, 4, "uint16", 11)


def test_a_continued_text_predicts_each_token_once_behind_the_one_before_it(tokens: PackedTokens) -> None:
    blocks = ContinuedBlocks(tokens, begin=1)
    read = [[*block["source"], *block["target"]] for block in blocks]
    assert read == [[1, 100, 101, 102, 103], [103, 104, 105, 106, 107], [107, 108, 109, 110]]
    predicted = [token for block in blocks for token in block["target"]]
    assert predicted == list(range(100, 111))


def test_a_whole_block_stands_between_the_tokens_of_a_text(tokens: PackedTokens) -> None:
    blocks = WholeBlocks(tokens, first=1, last=2)
    assert [block["source"] for block in blocks][1:] == [[1, 104, 105, 106, 107, 2], [1, 108, 109, 110, 2]]
    assert [block["target"] for block in blocks] == [[], [], []]


def test_a_block_is_a_mapping_as_any_feature(tokens: PackedTokens) -> None:
    block = ContinuedBlocks(tokens, begin=1)[1]
    expected = {"source": [103], "target": [104, 105, 106, 107], "class_index": NO_CLASS, "block": ["key", 1]}
    assert {**block} == expected
    assert dict(block) == expected
    with pytest.raises(KeyError):
        block["label"]


def test_blocks_are_indexed_as_a_list_is(tokens: PackedTokens) -> None:
    blocks = ContinuedBlocks(tokens, begin=1)
    everything = list(blocks)
    assert len(everything) == len(blocks) == 3
    for index in (slice(0, 2), slice(None, None, -1), slice(2, 9)):
        assert [block["block"] for block in blocks[index]] == [block["block"] for block in everything[index]]
    assert blocks[-1]["block"] == ["key", 2]
    for index in (3, -4):
        with pytest.raises(IndexError):
            blocks[index]


def test_a_training_set_keeps_no_token(tokens: PackedTokens) -> None:
    """A corpus of a gigabyte has hundreds of thousands of blocks, and a method puts them into a list of its own."""
    block = WholeBlocks(tokens, first=1, last=2)[0]
    assert isinstance(block, Block)
    assert not hasattr(block, "__dict__")
    assert sys.getsizeof(block) <= 64
