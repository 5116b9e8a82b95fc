"""Packed bits: by hand, and back again in every length."""

from __future__ import annotations

import pytest
import torch

from methods.shared.bits import packed, unpacked


def test_bytes_by_hand() -> None:
    mask = torch.tensor([[1, 0, 1], [1, 0, 0], [0, 0, 1], [0, 1, 0]]).bool()
    bits = packed(mask)
    assert bits.dtype == torch.uint8
    # 1 + 4 + 8, and the ninth bit with the eleventh
    assert bits.tolist() == [13, 1 + 4]
    assert torch.equal(unpacked(bits, (4, 3)), mask)
    assert packed(torch.ones(8).bool()).tolist() == [255]


@pytest.mark.parametrize("length", range(1, 20))
def test_every_length_comes_back(length: int) -> None:
    mask = torch.rand(length, generator=torch.Generator().manual_seed(length)) < 0.5
    bits = packed(mask)
    assert len(bits) == -(-length // 8)
    found = unpacked(bits, [length])
    assert found.dtype == torch.bool
    assert torch.equal(found, mask)
