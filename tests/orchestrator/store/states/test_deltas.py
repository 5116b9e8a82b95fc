"""Differences of weights: they come back bit for bit, whatever the bits are, and are small where little changed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import zstandard
from torch import Tensor

from orchestrator.store.states.deltas import pack_difference, unpack_difference

TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.int64, torch.bool]


def random(dtype: torch.dtype, seed: int, *shape: int) -> Tensor:
    """Bits of all kinds: numbers that are none, infinities and negative zeros among them."""
    rng = torch.Generator().manual_seed(seed)
    width = torch.zeros(0, dtype=dtype).element_size()
    count = int(np.prod(shape)) * width
    bits = torch.randint(0, 2 if dtype == torch.bool else 256, (count,), generator=rng, dtype=torch.uint8)
    return bits.view(dtype).reshape(shape)


def bits(tensor: Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", TYPES)
def test_bits_come_back_whatever_they_are(dtype: torch.dtype) -> None:
    base = {"w": random(dtype, 0, 5, 3), "row": random(dtype, 1, 7), "gone": random(dtype, 2, 2)}
    weights = {
        "w": random(dtype, 3, 5, 3),
        "row": random(dtype, 4, 9),
        "new": random(dtype, 5, 2, 2),
        "none": random(dtype, 6, 0, 4),
        "scalar": random(dtype, 7, 1).reshape(()),
    }
    packed, form = pack_difference(weights, base)
    again = unpack_difference(packed, form, base)
    assert list(again) == list(weights)
    for name, weight in weights.items():
        assert (again[name].dtype, again[name].shape) == (dtype, weight.shape)
        assert bits(again[name]) == bits(weight), name
    # a row that was longer or shorter before has no counterpart, nor has one of another type
    assert {name for name, how in json.loads(form).items() if how["has_base"]} == {"w"}
    assert not json.loads(pack_difference({"w": torch.zeros(5, 3)}, {"w": torch.zeros(5, 3).double()})[1])["w"][
        "has_base"
    ]


def test_the_planes_are_those_of_the_bits_that_differ() -> None:
    """By hand: 1.0 is 0x3f800000 and 1.0 + 2**-23 is 0x3f800001, so in the lowest plane alone there is something."""
    base = torch.ones(1000)
    weight = base.clone()
    weight[3] += 2**-23
    packed, form = pack_difference({"w": weight}, {"w": base})
    lengths = json.loads(form)["w"]["planes"]
    assert len(lengths) == 4
    content = packed["w"].numpy()
    planes = []
    for start, length in zip(np.cumsum([0, *lengths]), lengths, strict=False):
        planes.append(zstandard.ZstdDecompressor().decompress(content[start : start + length].tobytes()))
    assert planes[1:] == [bytes(1000)] * 3
    assert planes[0] == bytes(3) + b"\x01" + bytes(996)


def test_what_did_not_change_costs_next_to_nothing_and_noise_no_more_than_itself() -> None:
    weight = random(torch.float32, 0, 300, 300)
    same, _ = pack_difference({"w": weight}, {"w": weight.clone()})
    assert len(same["w"]) < 200
    noise, _ = pack_difference({"w": weight}, {"w": random(torch.float32, 1, 300, 300)})
    assert len(noise["w"]) == 4 * 300 * 300, "what does not compress is kept as it is"
