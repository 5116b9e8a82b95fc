"""Both ways train the same trials; their times are nobody's promise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rich.console import Console

from orchestrator.bench import fused
from orchestrator.bench.fused import Case, fused_trials, print_fused_trials

SMALL = Case("small", "tiny-bert", {"hidden_size": 32, "intermediate_size": 64}, examples=8)


def test_both_ways_train_the_same_trials() -> None:
    result = fused_trials(Console(quiet=True), trials=2, rounds=1, cases=[SMALL])
    assert torch.get_default_dtype() == torch.float32
    (case,) = result["cases"]
    assert result["equal_weights"]
    # of float64, and of weights that are there: two sums in another order are not bit for bit the same everywhere
    assert 0.0 <= case["largest_difference"] < 1e-9
    assert case["model"] == "small"
    assert case["ratio"] > 0 and case["separate_s"] >= 0 and case["fused_s"] >= 0
    console = Console(record=True, width=100)
    print_fused_trials(result | {"cases": [case | {"ratio": 0.634}]}, console)
    assert "0.63" in console.export_text()


def test_trials_differ_in_their_rates(tmp_path: Path) -> None:
    sequences = fused._sequences(SMALL, 3, tmp_path)
    rates = [sequence.training.lr for sequence in sequences]
    assert rates == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3])
    assert [len(sequence.tasks) for sequence in sequences] == [2, 2, 2]


def test_a_weight_that_differs_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one way trained at other rates, the largest difference is what a step at such a rate makes, not rounding."""
    whole = fused._sequences

    def other_rates(case: Case, trials: int, out: Path, examples: int | None = None) -> list[fused.SequencePlan]:
        made = whole(case, trials + 1, out, examples)
        return made[1:] if out.name == "together" else made[:-1]

    monkeypatch.setattr(fused, "_sequences", other_rates)
    assert fused._difference(SMALL, 2, tmp_path) > 1e-4
