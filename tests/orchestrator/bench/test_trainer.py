"""The bench against transformers' Trainer: what it reports, on a model and texts so small that its times mean nothing."""

from __future__ import annotations

import io
import json

from rich.console import Console
from typer.testing import CliRunner

from orchestrator.bench import trainer
from orchestrator.cli.app import app
from tests.conftest import SMALL


def test_what_is_measured() -> None:
    cases = [trainer.Case("small", "tiny-t5", SMALL["tiny-t5"], varied) for varied in (False, True)]
    out = io.StringIO()
    result = trainer.trainer_step(Console(file=io.StringIO()), rounds=1, cases=cases)
    assert result["bench"] == "trainer-step"
    equal, varied = result["cases"]
    assert (equal["lengths"], varied["lengths"]) == ("equal", "varied")
    assert equal["padding"] == equal["padding_trainer"] == 0
    # the cut by length is what the bench is to show
    assert 0 < varied["padding"] < varied["padding_trainer"] - 0.1
    assert equal["trainer_ms"] > 0 and equal["ratio"] > 0
    trainer.print_trainer_step(result, Console(file=out, width=100))
    shown = out.getvalue()
    assert "Trainer" in shown and f"{varied['ratio']:.2f} x" in shown
    json.dumps(result)


def test_the_command_is_there() -> None:
    result = CliRunner().invoke(app, ["bench", "trainer-step", "--help"])
    assert result.exit_code == 0
    assert "Trainer" in result.output
