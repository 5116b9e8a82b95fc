"""A method of an experiment: presets, parts, and published training."""

from __future__ import annotations

import pytest

from methods import PRESETS, PUBLISHED
from orchestrator.config.loading import load_config
from orchestrator.errors import UserError


def test_published_training_is_asked_for() -> None:
    methods = "methods=[{preset: olora+migu, training: published}, ft]"
    config = load_config(None, [methods])
    first, second = (config.training_for(m) for m in config.methods)
    assert (first.lr, first.global_batch, first.epochs, first.weight_decay, first.betas) == (
        1e-3,
        64,
        1,
        0.01,
        (0.9, 0.999),
    )
    assert second == config.training, "a preset brings no training unasked"
    assert set(PUBLISHED) <= set(PRESETS)
    for wrong in ("ewc", "[ft]"):
        with pytest.raises(UserError, match=r"no published training of .* is known; known: ft, "):
            load_config(None, [f"methods=[{{preset: {wrong}, training: published}}]"])
