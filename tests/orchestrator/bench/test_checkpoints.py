"""What states cost is counted right; its times are nobody's promise."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.bench.checkpoints import WAYS, _Pass, _sequence, checkpoint_costs, on_paper, print_checkpoint_costs
from orchestrator.store.checkpoints import Store
from tests.orchestrator.training.helpers import equal


def test_on_paper_it_is_the_states_that_stay() -> None:
    """By hand: 2 methods x 3 seeds of 16 tasks at 100 bytes. Of 16 states in a row, the first and the ninth are whole."""
    left = on_paper(0.25, bytes=100, methods=2, seeds=3, tasks=16)
    assert left == {"all": 9600, "delta": 6 * (200 + 14 * 25), "last": 600, "none": 0, "while_running": 200}


def test_each_way_leaves_the_same_states(tmp_path: Path) -> None:
    sequence = _sequence("tiny-t5", 16, str(tmp_path))
    left = []
    for way in WAYS:
        store = Store(tmp_path / way)
        _Pass(sequence, way, store).run()
        assert all(store.is_sound(key) for key in sequence.keys[1:])
        left.append([store.load(key).weights for key in sequence.keys[1:]])
    for other in left[1:]:
        assert all(equal(dict(before), dict(after)) for before, after in zip(left[0], other, strict=True))


def test_each_way_is_measured_and_each_setting_leaves_what_it_says() -> None:
    result = checkpoint_costs(Console(quiet=True), model="tiny-t5", max_train=32)
    assert [way["way"] for way in result["ways"]] == list(WAYS)
    for way in result["ways"]:
        assert way["train_s"] > 0 and way["wait_s"] > 0
        assert way["share"] == pytest.approx(way["wait_s"] / (way["wait_s"] + way["train_s"]), abs=0.001)
    left = {name: setting["bytes"] for name, setting in result["settings"].items()}
    inside = result["inside"]
    # the optimizer keeps two numbers for each weight
    assert 2.9 < inside["bytes"] / (left["all"] / 3) < 3.2
    assert 0 < inside["wait_s"] < inside["share_at_most"] * 600
    assert inside["share"] == pytest.approx(inside["wait_s"] / 600, abs=1e-7)
    assert result["tasks"] == 3
    # the three states are of one size, and their histories are small
    assert left["last"] == pytest.approx(left["all"] / 3, rel=0.01)
    assert left["none"] < 0.01 * left["last"]
    ratio = result["settings"]["delta"]["ratio"]
    assert left["last"] < left["delta"] < left["all"]
    assert left["delta"] == pytest.approx(left["last"] * (1 + 2 * ratio), rel=0.1)
    output = StringIO()
    print_checkpoint_costs(result, Console(file=output, width=120))
    lines = [line.split() for line in output.getvalue().splitlines()]
    # 11 methods x 3 seeds x 15 states of 737,668,096 weights, and one state of each sequence
    assert ["keep:", "all", f"{left['all'] / 1e6:.1f}", "MB", "1.46", "TB"] in lines
    assert ["keep:", "last", f"{left['last'] / 1e6:.1f}", "MB", "97.4", "GB"] in lines
