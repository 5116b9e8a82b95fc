"""Two gloo workers give what one gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from orchestrator.checkpoint import Store
from orchestrator.config import RunConfig
from orchestrator.journal import read_view
from orchestrator.loop import run_sequence
from orchestrator.plan import plan
from tests.conftest import FAMILIES, small_config

ROOT = Path(__file__).parent.parent.parent
METHODS = ["ft", "ft+migu", "ft+random", {"name": "lora+migu", "tuning": "lora", "plugins": ["migu"]}]


def configs(out: Path) -> list[RunConfig]:
    """Every method on every family; T5 with dropout and accumulation too, which then are equal on both sides."""
    made = [
        small_config(out, model=m, methods=METHODS, stream={"max_train": 80}, training={"micro_batch": 2})
        for m in FAMILIES
    ]
    overrides = {**made[0].model.overrides, "dropout_rate": 0.2}
    with_dropout = made[0].model_copy(update={"model": made[0].model.model_copy(update={"overrides": overrides})})
    return [*made, with_dropout]


@pytest.mark.slow
def test_one_and_two_workers_agree(tmp_path: Path) -> None:
    for config in configs(tmp_path / "one"):
        for sequence in plan(config):
            run_sequence(sequence)
    file = tmp_path / "configs.yaml"
    file.write_text(yaml.safe_dump([c.model_dump(mode="json") for c in configs(tmp_path / "two")]))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = str(Path(__file__).with_name("two_workers.py"))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, script, str(file)], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for config in configs(tmp_path / "one"):
        for sequence in plan(config):
            compare(sequence, sequence.model_copy(update={"out": str(tmp_path / "two")}))


def compare(one, two) -> None:  # type: ignore[no-untyped-def]
    """Losses of the first 50 steps to 1e-4, weights to float noise that Adam has amplified, scores to 2 points."""
    views = [read_view(s.out, s.id) for s in (one, two)]
    assert [v.start["workers"] for v in views if v.start] == [1, 2]
    losses = [[s["loss"] for task in v.by_task.values() for s in task.steps.values()] for v in views]
    assert len(losses[0]) == len(losses[1]) == 50
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4, err_msg=one.id)
    np.testing.assert_allclose(views[1].matrix()[-1].mean(), views[0].matrix()[-1].mean(), atol=2.0)
    weights = [Store(Path(s.out)).load(s.keys[-1]).weights for s in (one, two)]
    for name, w in weights[0].items():
        assert torch.linalg.vector_norm(w - weights[1][name]) <= 1e-3 * torch.linalg.vector_norm(w).clamp(min=1e-2), (
            name
        )
