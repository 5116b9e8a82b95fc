"""What methods cost counts right; its times are nobody's promise."""

from __future__ import annotations

import pytest
from rich.console import Console

from methods import PRESETS
from orchestrator.bench.costs import method_costs
from orchestrator.errors import UserError

pytestmark = pytest.mark.slow


def test_every_preset_has_its_price() -> None:
    rows = method_costs(Console(quiet=True), rounds=1, max_train=16)
    assert [row["method"] for row in rows] == [
        p for p in PRESETS if p not in ("zero-shot", "nmc", "fetril", "slca", "expert", "joint")
    ]
    costs = {row["method"]: row for row in rows}
    assert costs["ft"]["step"] == 1.0
    assert costs["ft"]["state_mb"] == 0.0
    # EWC keeps an anchor and a Fisher of all weights, which is twice the checkpoint
    assert costs["ewc"]["state_mb"] == pytest.approx(2 * costs["ft"]["checkpoint_mb"], rel=0.01)
    assert costs["lora"]["checkpoint_mb"] < 0.2 * costs["ft"]["checkpoint_mb"]


def test_what_is_no_model_is_said_at_once() -> None:
    with pytest.raises(UserError, match="unknown model 'zz'"):
        method_costs(Console(quiet=True), "zz")
