"""What every section of a configuration refuses: unknown keys, changes, and a value that comes twice."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from orchestrator.config.running import ScalingConfig
from tests.orchestrator.config.refusal import refused


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("methods=[ft, ft]", "methods: 'ft' is given twice; give each a `name`"),
        ("seeds=[1,1]", "seeds: 1 is given twice"),
        ("seeds=[]", "seeds: expected a list of at least one, found []"),
        ("streams=embedded", "streams: expected a list, found 'embedded'"),
        ("model=tiny-t5", "model: expected a mapping of settings, found 'tiny-t5'"),
        ("seeds=[4294967296]", "seeds.0"),
        ("training.epochs=true", "training.epochs: found True where a number or a text is expected"),
        ("training.lr=true", "training.lr: found True where a number"),
        ("training.betas=[0.9, true]", "training.betas: found [0.9, True] where a number"),
        ("training.lrs={head: true}", "training.lrs: found {'head': True} where a number"),
        ("training.budget={steps: true}", "training.budget.steps: found True where a number"),
        ("seeds=[true]", "seeds: found [True] where a number"),
        ("streams.max_train=yes", "streams.0.max_train: found True where a number"),
        ("streams.row_half=true", "streams.0.row_half: found True where a number"),
        ("methods=[{preset: ft, training: {epochs: true}}]", "training.epochs: found True where a number"),
        ("methods=[{tuning: full, plugins: [{name: migu, ratio: true}]}]", "migu.ratio: found True where a number"),
        ("methods=[{tuning: {name: lora, r: true}}]", "lora.r: found True where a number"),
        ("scaling.worker=2", "unknown key 'worker'. Did you mean 'workers'?"),
    ],
)
def test_what_no_section_takes_is_refused(override: str, part: str) -> None:
    assert part in refused(override)


def test_a_section_does_not_change() -> None:
    """Keys of checkpoints are made of it, once."""
    scaling = ScalingConfig()
    with pytest.raises(ValidationError, match="frozen"):
        scaling.workers = 2
