"""A change of weights in few bytes: a matrix by quantised singular vectors, an embedding by its largest entries.

Shapes: a matrix [O, I] with r kept directions, each of N = O + I entries (its left vector, then its right one), cut into G
groups that are quantised alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from methods.shared import bits
from methods.shared.tensors import at_least_float32

# The bits of an entry in a band of directions; at 16 it is a bfloat16, at 32 it has the weight's own type
WIDTHS = (2, 4, 8, 16, 32)
QUANTISED = (2, 4, 8)

# What the stored tensors of a weight are called behind its name and a slash, which no parameter's name has
CODES = "codes"
GRID = "grid"
SINGULAR = "singular"
KEPT = "kept"
VALUES = "values"

Bands = Sequence[tuple[float, int]]
Tensors = Mapping[str, Tensor]


def largest_directions(delta_OI: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The singular vectors [r, N] of the `rank` largest directions, and all singular values [min(O, I)]."""
    u, s, vh = torch.linalg.svd(at_least_float32(delta_OI), full_matrices=False)
    vectors_rN = torch.cat([u.T, vh], dim=1)[:rank]
    # a decomposition leaves each direction's sign open, and another library would store other codes: the largest entry is
    # made positive
    largest = vectors_rN.gather(1, vectors_rN.abs().argmax(1, keepdim=True))
    return vectors_rN * largest.sign(), s


def numerical_rank(values: Tensor, shape: Sequence[int]) -> int:
    """How many directions are more than rounding, by the usual bound: longer than eps * max(O, I) times the longest."""
    bound = torch.finfo(values.dtype).eps * max(shape) * values[0]
    return int((values > bound).sum())


def energy_rank(values: Tensor, share: float) -> int:
    """The least k of which sum_(i <= k) s_i^2 is at least the share of the sum over all; with a share of 1 that is all."""
    if share == 1:
        return len(values)
    energy = torch.cumsum(values.double().square(), 0)
    return 1 + int((energy < share * energy[-1]).sum())


def band_ends(shares: Bands, rank: int) -> list[int]:
    """Where each band of directions ends; rounded up, so that the first direction is always in the first band.

    The shares add up to 1, to a millionth.
    """
    ends = []
    total = 0.0
    for share, _ in shares:
        total += share
        # 1e-9: a product that is whole in decimals may lie just above in binary, and would be rounded up
        ends.append(min(rank, math.ceil(total * rank - 1e-9)))
    return ends


def quantised(rows_rN: Tensor, width: int, group: int) -> tuple[Tensor, Tensor]:
    """(codes [r, N] in uint8, grid [r, G, 2] in bfloat16: the lowest value of each group and the step between two).

    An entry x becomes round((x - lowest) / step), 2^width steps from the least to the largest entry of its group, which are
    `group` entries, the last one what is left.
    """
    count = rows_rN.shape[1]
    # filled up with the last entry, which changes neither least nor largest
    filling = rows_rN[:, -1:].expand(-1, -count % group)
    groups_rGg = torch.cat([rows_rN, filling], dim=1).view(len(rows_rN), -(-count // group), group)
    lowest = groups_rGg.amin(2)
    step = (groups_rGg.amax(2) - lowest) / (2**width - 1)
    grid_rG2 = torch.stack([lowest, step], dim=2).to(torch.bfloat16)
    lowest_rN, step_rN = _of_entries(grid_rG2, group, count, rows_rN.dtype)
    # a group of equal entries has no steps, and nothing to divide by
    codes = ((rows_rN - lowest_rN) / step_rN.where(step_rN > 0, 1)).round()
    return codes.clamp(0, 2**width - 1).to(torch.uint8), grid_rG2


def _of_entries(grid_rG2: Tensor, group: int, count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(lowest, step), each [r, N]: for every entry those of its group."""
    grid = grid_rG2.to(dtype).repeat_interleave(group, dim=1)[:, :count]
    return grid[..., 0], grid[..., 1]


def pack_matrix(
    vectors_rN: Tensor, values_r: Tensor, shares: Bands, group: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The stored form of a matrix's directions: bytes of the entries band after band, the grids, and the singular values."""
    stored = []
    grids = []
    start = 0
    for end, (_, width) in zip(band_ends(shares, len(vectors_rN)), shares, strict=True):
        rows = vectors_rN[start:end]
        start = end
        if width in QUANTISED:
            codes, grid = quantised(rows, width, group)
            stored.append(bits.packed_codes(codes, width))
            grids.append(grid)
        else:
            stored.append(rows.to(_raw_type(width, dtype)).contiguous().view(torch.uint8).flatten())
    packed = {CODES: torch.cat(stored), SINGULAR: values_r}
    if grids:
        packed[GRID] = torch.cat(grids)
    return packed


def unpack_matrix(packed: Tensors, shape: Sequence[int], shares: Bands, group: int, dtype: torch.dtype) -> Tensor:
    """The change [O, I] in float64 that a stored form gives."""
    values_r = packed[SINGULAR].double()
    size = sum(shape)
    rows = []
    start = 0
    first_byte = 0
    first_grid = 0
    for end, (_, width) in zip(band_ends(shares, len(values_r)), shares, strict=True):
        count = end - start
        start = end
        raw_type = _raw_type(width, dtype)
        num_bytes = math.ceil(count * size * width / 8)
        if width not in QUANTISED:
            num_bytes = count * size * raw_type.itemsize
        # a copy, as a view in another type has to begin at a whole element
        stored = packed[CODES][first_byte : first_byte + num_bytes].clone()
        first_byte += num_bytes
        if width not in QUANTISED:
            rows.append(stored.view(raw_type).view(count, size).double())
            continue
        codes = bits.unpacked_codes(stored, width, count * size).view(count, size)
        grid = packed[GRID][first_grid : first_grid + count]
        first_grid += count
        lowest_rN, step_rN = _of_entries(grid, group, size, torch.float64)
        rows.append(lowest_rN + codes * step_rN)
    vectors_rN = torch.cat(rows)
    left_rO, right_rI = vectors_rN.split(list(shape), dim=1)
    return (left_rO * values_r.unsqueeze(1)).T @ right_rI


def _raw_type(width: int, dtype: torch.dtype) -> torch.dtype:
    """The type of entries that are not quantised."""
    if width == 16:
        return torch.bfloat16
    return dtype


def pack_entries(delta: Tensor, share: float) -> dict[str, Tensor]:
    """The stored form of a pruned change: a bit for each entry, and the `share` of entries of largest size, in bfloat16."""
    flat = delta.flatten()
    count = round(share * len(flat))
    kept = torch.zeros_like(flat, dtype=torch.bool)
    # stable: of entries of one size the first ones are kept, on every machine
    kept[flat.abs().argsort(descending=True, stable=True)[:count]] = True
    # what has not moved needs no value
    kept &= flat != 0
    return {KEPT: bits.packed(kept), VALUES: flat[kept].to(torch.bfloat16)}


def unpack_entries(packed: Tensors, shape: Sequence[int]) -> Tensor:
    """The change in float64 that a stored form gives."""
    kept = bits.unpacked(packed[KEPT], shape)
    delta = torch.zeros(*shape, dtype=torch.float64)
    delta[kept] = packed[VALUES].double()
    return delta


def num_bytes_of(tensors: Tensors) -> int:
    """The bytes of tensors, without what a file says about them."""
    total = 0
    for tensor in tensors.values():
        total += tensor.numel() * tensor.element_size()
    return total
