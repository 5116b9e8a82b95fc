"""Boolean tensors with one bit for each entry, as a checkpoint keeps them: torch's own take a byte."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_WIDTH = 8


def packed(mask: Tensor) -> Tensor:
    """The bits of a boolean tensor, eight in each uint8, the first one lowest; the last byte is filled up with zeros."""
    flat = mask.flatten().to(torch.uint8)
    rows = F.pad(flat, (0, -len(flat) % _WIDTH)).view(-1, _WIDTH)
    values = 2 ** torch.arange(_WIDTH, dtype=torch.uint8, device=mask.device)
    # no sum of eight different powers leaves a byte
    return (rows * values).sum(1, dtype=torch.uint8)


def unpacked(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """The boolean tensor of that shape that was packed."""
    places = torch.arange(_WIDTH, dtype=torch.uint8, device=bits.device)
    flat = (bits.unsqueeze(1) >> places) & 1
    count = torch.Size(shape).numel()
    return flat.flatten()[:count].view(*shape).bool()
