"""The forms that are timed are those that they are called; their times are nobody's promise."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from methods.masking.migu import Migu
from orchestrator.bench.steps import FORMS, Case, Form, migu_step, print_migu_step

SMALL = Case("small", "tiny-t5", {"d_model": 32, "d_kv": 8, "d_ff": 64}, examples=2, source_tokens=8, target_tokens=3)


def test_each_form_is_what_it_is_called(tmp_path: Path) -> None:
    """The masked and the row-sparse form train alike; fine-tuning moves units that they mask."""
    weights = {}
    for name in FORMS:
        form = Form(SMALL, name, str(tmp_path / name))
        for _, part in form.learner.stack.parts[1:]:
            assert isinstance(part, Migu)
            assert bool(part.row_sparse) == (name == "row_sparse")
            assert part.settings.released == (name == "released")
        assert form.step_seconds() > 0
        weights[name] = torch.cat([weight.flatten() for weight in form.learner.weights().values()]).detach()
    torch.testing.assert_close(weights["row_sparse"], weights["masked"])
    for name in ("released", "masked"):
        assert not torch.allclose(weights[name], weights["dense"])


def test_the_result_has_a_case_for_each_model() -> None:
    result = migu_step(Console(quiet=True), rounds=2, cases=[SMALL, SMALL])
    assert result["bench"] == "migu-step"
    assert [case["model"] for case in result["cases"]] == ["small", "small"]
    for case in result["cases"]:
        assert set(case) == {
            "model",
            "device",
            "dense_ms",
            "ratio_released",
            "ratio_masked",
            "ratio_row_sparse",
            "peak_memory_ratio",
        }
        assert min(case["ratio_released"], case["ratio_masked"], case["ratio_row_sparse"]) > 0
    console = Console(record=True, width=100)
    print_migu_step({"cases": [result["cases"][0] | {"ratio_row_sparse": 0.834, "peak_memory_ratio": None}]}, console)
    assert "0.83 x" in console.export_text()
