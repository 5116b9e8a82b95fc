"""A row for each kind: sums over rounds, medians over those that were hit."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from orchestrator.bench.chaos.table import has_damage, print_chaos, summary

WHOLE: dict[str, Any] = {
    "kind": "kill-gcs",
    "done": "SIGKILL",
    "lost": 0,
    "doubled": 0,
    "differs": 0,
    "trained_again": 0,
    "tracebacks": 0,
    "recovered": True,
    "repeated_s": 1.0,
    "recover_s": 20.0,
    "whole": True,
}


def test_rows_by_hand() -> None:
    damaged = WHOLE | {
        "lost": 3,
        "doubled": 1,
        "recovered": False,
        "repeated_s": 2.0,
        "recover_s": 40.0,
        "whole": False,
    }
    missed = WHOLE | {"done": "", "repeated_s": 0.0, "recover_s": 900.0}
    rows = summary([WHOLE, damaged, missed, missed | {"kind": "interrupt"}])
    assert rows == [
        {
            "kind": "interrupt", "rounds": 1, "hits": 0, "lost": 0, "doubled": 0, "differs": 0, "trained_again": 0,
            "tracebacks": 0, "not_recovered": 0, "repeated_s": None, "recover_s": None,
        },
        {
            "kind": "kill-gcs", "rounds": 3, "hits": 2, "lost": 3, "doubled": 1, "differs": 0, "trained_again": 0,
            "tracebacks": 0, "not_recovered": 1, "repeated_s": 1.5, "recover_s": 30.0,
        },
    ]  # fmt: skip
    played = [WHOLE, damaged, missed]
    result = {"bench": "chaos", "rounds": 3, "seed": 5, "kinds": rows, "played": played}
    assert has_damage(result)
    assert not has_damage({"played": [WHOLE, missed]})
    console = Console(width=80, record=True, file=io.StringIO())
    print_chaos(result, console)
    text = console.export_text()
    assert "3 rounds, seed 5" in text
    assert "2 of 3 rounds ended as the undisturbed run" in text
    (row,) = [line.split() for line in text.splitlines() if "kill-gcs" in line]
    assert row == ["kill-gcs", "2/3", "3", "1", "0", "0", "1", "1.5", "s", "30.0", "s"]
