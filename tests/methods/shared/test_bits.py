"""Packed bits: by hand, and back again in every length."""

from __future__ import annotations

import pytest
import torch

from methods.shared.bits import packed, packed_codes, unpacked, unpacked_codes


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


def test_numbers_by_hand() -> None:
    # four in a byte: 1 + 2 * 4 + 3 * 16 + 0 * 64, and the fifth alone
    assert packed_codes(torch.tensor([1, 2, 3, 0, 3]), 2).tolist() == [57, 3]
    # two in a byte: 10 + 5 * 16
    assert packed_codes(torch.tensor([[10, 5], [15, 0]]), 4).tolist() == [90, 15]
    assert packed_codes(torch.tensor([255, 7]), 8).tolist() == [255, 7]
    assert unpacked_codes(torch.tensor([57, 3], dtype=torch.uint8), 2, 5).tolist() == [1, 2, 3, 0, 3]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("length", [0, 1, 3, 4, 9])
def test_numbers_of_every_width_come_back(bits: int, length: int) -> None:
    codes = torch.randint(2**bits, (length,), generator=torch.Generator().manual_seed(length))
    stored = packed_codes(codes, bits)
    assert stored.dtype == torch.uint8
    assert len(stored) == -(-length * bits // 8)
    assert unpacked_codes(stored, bits, length).tolist() == codes.tolist()
