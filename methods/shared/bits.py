"""Small whole numbers and booleans in as few bits as they need, as a checkpoint keeps them: torch's own take a byte or more."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_WIDTH = 8


def packed_codes(codes: Tensor, bits: int) -> Tensor:
    """Whole numbers below 2^bits in uint8, 8 / bits of them in each, the first one lowest; the last is filled up with zeros.

    `bits` is 1, 2, 4 or 8.
    """
    in_a_byte = _WIDTH // bits
    flat = codes.flatten().to(torch.uint8)
    rows = F.pad(flat, (0, -len(flat) % in_a_byte)).view(-1, in_a_byte)
    places = bits * torch.arange(in_a_byte, dtype=torch.uint8, device=codes.device)
    # numbers at different places share no bit, so their sum leaves no byte
    return (rows << places).sum(1, dtype=torch.uint8)


def unpacked_codes(values: Tensor, bits: int, count: int) -> Tensor:
    """The first `count` whole numbers that were packed, as uint8 in one row."""
    places = bits * torch.arange(_WIDTH // bits, dtype=torch.uint8, device=values.device)
    codes = (values.unsqueeze(1) >> places) & (2**bits - 1)
    return codes.flatten()[:count]


def packed(mask: Tensor) -> Tensor:
    """The bits of a boolean tensor, eight in each uint8, the first one lowest; the last byte is filled up with zeros."""
    return packed_codes(mask, 1)


def unpacked(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """The boolean tensor of that shape that was packed."""
    return unpacked_codes(bits, 1, torch.Size(shape).numel()).view(*shape).bool()
