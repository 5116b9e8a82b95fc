"""Small helpers: what trains, sums in float32, and generators that nothing but their parts decides."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import nn

from methods.shared.tensors import (
    at_least_float32,
    freeze_all_but,
    generator,
    outside_autocast,
    trainable,
    type_beside,
)


def test_all_but_the_head_is_frozen_and_the_head_trains_again() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model.requires_grad_(False)
    model[0].bias.requires_grad_(True)
    freeze_all_but(model, [model[1].weight])
    assert list(trainable(model)) == ["1.weight"]
    assert trainable(model)["1.weight"] is model[1].weight
    freeze_all_but(model, [])
    assert trainable(model) == {}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_sums_are_taken_in_float32_or_wider(given: torch.dtype, expected: torch.dtype) -> None:
    """In bfloat16, of 8 bits, 1 + 1 / 512 is 1."""
    wide = at_least_float32(torch.ones(1, dtype=given))
    assert wide.dtype == expected
    assert (wide + 1 / 512).item() == 1 + 1 / 512


def test_products_outside_autocast_keep_their_type() -> None:
    a = torch.tensor([[1.0, 1 / 512]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (a @ torch.ones(2, 1)).item() == 1.0
        with outside_autocast(a):
            assert (a @ torch.ones(2, 1)).item() == 1 + 1 / 512
        assert (a @ torch.ones(2, 1)).dtype == torch.bfloat16, "the model goes on as before"


def test_a_generator_follows_from_its_parts_alone() -> None:
    """Seeds of stored runs are made so: the first seven bytes of the SHA-256 of the parts as Python shows them."""
    digest = hashlib.sha256(b"(7, 'lora', 'layer.0', 1)").hexdigest()
    assert generator(7, "lora", "layer.0", 1).initial_seed() == int(digest[:14], 16)
    before = torch.get_rng_state()
    seeds = {
        generator(*parts).initial_seed()
        for parts in [(1, 23), (12, 3), ("1", 23), (1, "23"), (1,), ("a", "b"), ("ab",)]
    }
    assert len(seeds) == 7, "neither types nor borders are lost"
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [(torch.bfloat16, torch.float32), (torch.float64, torch.float64), (torch.int8, torch.float32)],
)
def test_beside_frozen_weights_one_trains_in_float32_at_least(weight: torch.dtype, expected: torch.dtype) -> None:
    assert type_beside(torch.zeros(1, dtype=weight)) == expected
