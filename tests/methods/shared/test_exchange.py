"""Tensors that travel as one vector."""

from __future__ import annotations

from pathlib import Path

import torch

from methods.shared.exchange import as_one
from methods.shared.shards import local
from tests.gloo import in_workers


def test_all_travel_in_one_call_and_come_back_in_their_shapes() -> None:
    sizes = []

    def doubled(fused: torch.Tensor) -> torch.Tensor:
        sizes.append(fused.shape)
        return 2 * fused

    found = as_one([torch.ones(2, 3), torch.tensor(4.0), torch.zeros(0)], doubled)
    assert sizes == [(7,)]
    assert [tensor.tolist() for tensor in found] == [[[2.0] * 3] * 2, 8.0, []]


def test_sharded_ones_stay(tmp_path: Path) -> None:
    def check(rank: int) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor import Shard, distribute_tensor

        sharded = distribute_tensor(torch.ones(2, 1), init_device_mesh("cpu", (2,)), [Shard(0)])
        kept, negated = as_one([sharded, torch.ones(1)], torch.neg)
        assert kept is sharded
        assert negated.tolist() == [-1.0]
        assert as_one([sharded], torch.neg)[0] is sharded
        assert len(local(sharded)) == 1

    in_workers(check, 2, tmp_path)
