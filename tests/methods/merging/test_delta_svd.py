"""Compressed changes against numpy's decomposition, grids worked by hand, and sizes from the formula."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from methods.merging.delta_svd import (
    band_ends,
    energy_rank,
    largest_directions,
    num_bytes_of,
    numerical_rank,
    pack_entries,
    pack_matrix,
    quantised,
    unpack_entries,
    unpack_matrix,
)

BANDS = ((0.1, 8), (0.3, 4), (0.6, 2))
ROWS = 12
COLUMNS = 20


def matrix(seed: int = 0, rank: int = min(ROWS, COLUMNS)) -> Tensor:
    """A matrix [ROWS, COLUMNS] of that rank, whose singular values lie apart."""
    rng = np.random.default_rng(seed)
    left, _ = np.linalg.qr(rng.standard_normal((ROWS, ROWS)))
    right, _ = np.linalg.qr(rng.standard_normal((COLUMNS, COLUMNS)))
    return torch.from_numpy(left[:, :rank] * 0.7 ** np.arange(rank) @ right[:rank])


def numpy_directions(delta: Tensor, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """[r, ROWS + COLUMNS] and [r] from numpy, the largest entry of each direction positive."""
    u, s, vh = np.linalg.svd(delta.numpy(), full_matrices=False)
    vectors = np.concatenate([u.T, vh], axis=1)[:rank]
    for row in vectors:
        if row[np.abs(row).argmax()] < 0:
            row *= -1
    return vectors, s[:rank]


def rounded(value: float) -> float:
    """A number as bfloat16 holds it."""
    return float(torch.tensor(value).to(torch.bfloat16))


def requantised(row: np.ndarray, width: int, group: int) -> np.ndarray:
    """What a row becomes in that many bits, entry by entry."""
    found = []
    for start in range(0, len(row), group):
        part = row[start : start + group]
        lowest, step = rounded(part.min()), rounded((part.max() - part.min()) / (2**width - 1))
        for entry in part:
            code = min(max(round((entry - lowest) / step), 0), 2**width - 1)
            found.append(lowest + code * step)
    return np.array(found)


@pytest.mark.parametrize("rank", [1, 5, 12])
def test_directions_are_numpys(rank: int) -> None:
    delta = matrix()
    vectors, values = largest_directions(delta, rank)
    expected_vectors, expected_values = numpy_directions(delta, rank)
    np.testing.assert_allclose(values[:rank], expected_values, rtol=1e-12)
    assert len(values) == ROWS
    np.testing.assert_allclose(vectors, expected_vectors, atol=1e-12)
    # the other sign of the matrix turns one side of each direction over, which the convention then settles
    turned, _ = largest_directions(-delta, rank)
    products = [torch.outer(v[:ROWS], v[ROWS:]) for v in vectors]
    for product, v in zip(products, turned, strict=True):
        np.testing.assert_allclose(torch.outer(v[:ROWS], v[ROWS:]), -product, atol=1e-12)
        assert v[v.abs().argmax()] > 0


def test_directions_of_no_length_are_counted_out() -> None:
    for rank in (0, 1, 3, 12):
        _, values = largest_directions(matrix(rank=rank).float(), 12)
        assert numerical_rank(values, (ROWS, COLUMNS)) == rank


def test_the_rank_that_makes_up_a_share_of_the_energy_by_hand() -> None:
    """Squares 16, 4, 4, 1: of 25 in all."""
    values = torch.tensor([4.0, 2.0, 2.0, 1.0])
    shares = (0.01, 16 / 25, 0.65, 20 / 25, 0.81, 24 / 25, 0.97, 1.0)
    assert [energy_rank(values, share) for share in shares] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert energy_rank(torch.zeros(4), 0.5) == 1


def test_bands_are_rounded_up_from_the_first_direction_on() -> None:
    assert band_ends(((0.02, 8), (0.18, 4), (0.8, 2)), 1000) == [20, 200, 1000]
    # 0.32 and 3.2 of 16
    assert band_ends(((0.02, 8), (0.18, 4), (0.8, 2)), 16) == [1, 4, 16]
    assert band_ends(((0.02, 8), (0.18, 4), (0.8, 2)), 1) == [1, 1, 1]
    assert band_ends(((0.5, 8), (0.5, 4)), 0) == [0, 0]
    # 0.1 + 0.2 is more than 0.3 in binary
    assert band_ends(((0.1, 8), (0.2, 4), (0.7, 2)), 10) == [1, 3, 10]
    assert band_ends(((0.3333333, 8), (0.3333333, 4), (0.3333333, 2)), 9) == [3, 6, 9]


def test_a_grid_by_hand() -> None:
    """Two bits: a group from 0 to 3 has steps of 1, one from -1 to 2 too; the last group, of one entry, has no steps.

    0.7 is 0.69921875 in bfloat16.
    """
    rows = torch.tensor([[0.0, 0.4, 1.6, 3.0, -1.0, 2.0, 0.6, -0.4, 0.7]])
    codes, grid = quantised(rows, 2, 4)
    assert codes.tolist() == [[0, 0, 2, 3, 0, 3, 2, 1, 0]]
    assert codes.dtype == torch.uint8
    assert grid.dtype == torch.bfloat16
    assert grid.tolist() == [[[0.0, 1.0], [-1.0, 1.0], [0.69921875, 0.0]]]


@pytest.mark.parametrize("width", [2, 4, 8])
def test_an_entry_moves_by_little_more_than_half_a_step(width: int) -> None:
    rows = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    codes, grid = quantised(rows, width, 16)
    for row, row_codes, row_grid in zip(rows, codes, grid, strict=True):
        for j, (entry, code) in enumerate(zip(row.tolist(), row_codes.tolist(), strict=True)):
            lowest, step = row_grid[j // 16].tolist()
            # beside half a step, the grid's own rounding: 2^-9 of the lowest value, and of all steps together
            bound = step / 2 + (abs(lowest) + step * (2**width - 1)) * 2**-8
            assert abs(lowest + code * step - entry) <= bound


@pytest.mark.parametrize("rank", [1, 7, 12])
@pytest.mark.parametrize("bands", [BANDS, ((1.0, 4),), ((0.5, 16), (0.5, 2)), ((0.4, 8), (0.6, 32))])
def test_a_matrix_comes_back_as_its_rounded_directions(bands: Any, rank: int, tmp_path: Path) -> None:
    """Through a file; against truncation and rounding by numpy, one entry after another."""
    delta = matrix(rank)
    group = 5
    found_vectors, found_values = largest_directions(delta, rank)
    packed = pack_matrix(found_vectors, found_values[:rank], bands, group, torch.float64)
    save_file(packed, tmp_path / "packed")
    found = unpack_matrix(load_file(tmp_path / "packed"), (ROWS, COLUMNS), bands, group, torch.float64)
    vectors, values = numpy_directions(delta, rank)
    expected = np.zeros((ROWS, COLUMNS))
    first = 0
    for (_, width), end in zip(bands, band_ends(bands, rank), strict=True):
        for row, value in zip(vectors[first:end], values[first:end], strict=True):
            kept = row
            if width == 16:
                kept = np.array([rounded(entry) for entry in row])
            elif width < 16:
                kept = requantised(row, width, group)
            expected += value * np.outer(kept[:ROWS], kept[ROWS:])
        first = end
    np.testing.assert_allclose(found, expected, atol=1e-12)
    # the formula: an entry's bits, full bytes a band; two bfloat16 a group of what is quantised; the singular values
    size = 8 * rank
    first = 0
    for (_, width), end in zip(bands, band_ends(bands, rank), strict=True):
        count = end - first
        first = end
        # 32: the matrix's own type, which is float64 here
        size += math.ceil(count * (ROWS + COLUMNS) * {32: 64}.get(width, width) / 8)
        if width < 16:
            size += count * math.ceil((ROWS + COLUMNS) / group) * 2 * 2
    assert num_bytes_of(packed) == size


def test_a_matrix_that_has_not_moved_comes_back(tmp_path: Path) -> None:
    vectors, values = largest_directions(torch.zeros(ROWS, COLUMNS), 4)
    packed = pack_matrix(vectors[:0], values[:0], BANDS, 128, torch.float32)
    save_file(packed, tmp_path / "packed")
    found = unpack_matrix(load_file(tmp_path / "packed"), (ROWS, COLUMNS), BANDS, 128, torch.float32)
    assert num_bytes_of(packed) == 0
    assert torch.equal(found, torch.zeros(ROWS, COLUMNS, dtype=torch.float64))


def test_the_largest_entries_stay_by_hand() -> None:
    delta = torch.tensor([[0.5, -3.0, 0.25], [1.0, -1.0, 0.0]])
    packed = pack_entries(delta, 0.5)
    # of 1 and -1 too: three of six
    assert packed["values"].tolist() == [-3.0, 1.0, -1.0]
    assert packed["values"].dtype == torch.bfloat16
    assert packed["kept"].tolist() == [2 + 8 + 16]
    assert unpack_entries(packed, (2, 3)).tolist() == [[0.0, -3.0, 0.0], [1.0, -1.0, 0.0]]
    # of equal ones the first; and what is zero takes no place
    assert pack_entries(torch.tensor([1.0, -1.0, 1.0, 1.0]), 0.5)["values"].tolist() == [1.0, -1.0]
    assert pack_entries(torch.tensor([0.0, 2.0, 0.0, 0.0]), 0.5)["values"].tolist() == [2.0]
