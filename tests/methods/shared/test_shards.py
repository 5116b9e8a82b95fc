"""Tensors in parts: three workers with 2, 2 and 1 of five rows; and tensors that are whole, of which nothing changes."""

from __future__ import annotations

from pathlib import Path

import torch

from methods.shared.shards import is_sharded, local, part_of, rows_held, sum_of_parts, total, whole
from tests.gloo import in_workers

MATRIX = torch.arange(10.0).reshape(5, 2)


def test_of_a_whole_tensor_everything_is_itself() -> None:
    weight = torch.nn.Parameter(MATRIX.clone())
    assert not is_sharded(weight)
    assert rows_held(weight) == slice(0, 5)
    assert torch.equal(whole(weight), MATRIX)
    assert part_of(MATRIX, weight) is MATRIX
    assert sum_of_parts(MATRIX, weight) is MATRIX
    assert total([weight, torch.ones(3)]) == 45 + 3
    with torch.no_grad():
        local(weight)[0, 0] = 7.0
    assert weight[0, 0] == 7.0 and not local(weight).requires_grad


def test_each_of_three_workers_has_its_rows(tmp_path: Path) -> None:
    def check(rank: int) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor import Shard, distribute_tensor

        mesh = init_device_mesh("cpu", (3,))
        weight = torch.nn.Parameter(distribute_tensor(MATRIX.clone(), mesh, [Shard(0)]))
        rows = [slice(0, 2), slice(2, 4), slice(4, 5)][rank]
        assert is_sharded(weight)
        assert rows_held(weight) == rows
        assert torch.equal(local(weight), MATRIX[rows])
        assert torch.equal(whole(weight), MATRIX) and not is_sharded(whole(weight))
        other = part_of(MATRIX * 10, weight)
        assert is_sharded(other) and torch.equal(local(other), MATRIX[rows] * 10)
        assert part_of(other, weight) is other
        # 45 of all rows, once; and what is whole once too, not once for each worker
        assert total([weight.detach(), torch.ones(3)]) == 45 + 3
        assert sum_of_parts(torch.tensor([1.0, rank]), weight).tolist() == [3.0, 3.0]
        with torch.no_grad():
            local(weight)[0, 0] += 100
        assert [float(v) for v in whole(weight)[:, 0]] == [100, 2, 104, 6, 108]

    in_workers(check, 3, tmp_path)


def test_replicas_of_a_part_do_not_count_twice(tmp_path: Path) -> None:
    """Two nodes of two workers, each node with a copy of its own in parts."""

    def check(rank: int) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor import Replicate, Shard, distribute_tensor

        mesh = init_device_mesh("cpu", (2, 2))
        weight = distribute_tensor(MATRIX.clone(), mesh, [Replicate(), Shard(0)])
        rows = [slice(0, 3), slice(3, 5)][rank % 2]
        assert rows_held(weight) == rows
        assert torch.equal(local(weight), MATRIX[rows])
        assert torch.equal(whole(weight), MATRIX)
        assert total([weight]) == 45
        assert sum_of_parts(torch.tensor(float(rank % 2 + 1)), weight) == 3
        assert torch.equal(local(part_of(MATRIX + 1, weight)), MATRIX[rows] + 1)

    in_workers(check, 4, tmp_path)
