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
        ("seeds=[]", "seeds"),
        ("seeds=[4294967296]", "seeds.0"),
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
