"""Token ids of different lengths as one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from methods import TokenStream


def pad_right(sequences: Sequence[Sequence[int]], value: int) -> Tensor:
    """[B, longest] with `value` behind the shorter sequences."""
    longest = max(map(len, sequences))
    padded = []
    for ids in sequences:
        padded.append([*ids, *[value] * (longest - len(ids))])
    return torch.tensor(padded)


def pad_left(sequences: Sequence[Sequence[int]], value: int) -> Tensor:
    """[B, longest] with `value` before the shorter sequences."""
    longest = max(map(len, sequences))
    padded = []
    for ids in sequences:
        padded.append([*[value] * (longest - len(ids)), *ids])
    return torch.tensor(padded)


def lengths_mask(sequences: Sequence[Sequence[int]]) -> Tensor:
    """[B, longest]: 1 on each sequence's own tokens, which come first."""
    lengths_B = torch.tensor(list(map(len, sequences)))
    positions_S = torch.arange(int(lengths_B.max()))
    return (positions_S[None, :] < lengths_B[:, None]).long()


def token_stream(sequences: Sequence[Sequence[int]], pad: int) -> TokenStream:
    """A token stream with padding behind the shorter sequences."""
    return TokenStream(pad_right(sequences, pad), lengths_mask(sequences))
