"""TODO orchestrator.models.padding"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pad_right(rows: Sequence[Sequence[int]], value: int, width: int | None = None) -> Tensor:
    """[B, longest] (or [B, width]) with `value` behind the shorter rows."""
    longest = width or max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


def pad_left(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """[B, longest] with `value` before the shorter rows."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*[value] * (longest - len(row)), *row] for row in rows])


def lengths_mask(rows: Sequence[Sequence[int]], width: int) -> Tensor:
    """[B, width]: 1 on each row's own tokens."""
    return (torch.arange(width)[None, :] < torch.tensor([len(row) for row in rows])[:, None]).long()
