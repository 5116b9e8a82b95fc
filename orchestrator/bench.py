"""Measurements behind the project's claims, each by one command."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from orchestrator.config import RunConfig
from orchestrator.journal import View
from orchestrator.loop import run_sequence
from orchestrator.plan import Sequence, plan

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
RATES = (5e-4, 1e-3)


def search_reuse(console: Console, max_train: int = 160) -> dict[str, Any]:
    """A search's sequences over one store, against each of them in a store of its own: tasks trained, seconds, results.

    Six ratios of MIGU, fine-tuning and the random mask, each at two learning rates, on the five embedded tasks.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        shared = _search(Path(folder) / "shared", max_train)
        rows = []
        for number, sequence in enumerate(track(shared, "search-reuse", console=console, transient=True)):
            alone = sequence.model_copy(update={"out": str(Path(folder) / f"alone-{number}")})
            pair = [sequence, alone] if number % 2 else [alone, sequence]  # neither always comes first
            views = {s.out: _timed(s) for s in pair}
            rows.append((sequence, views[sequence.out], views[alone.out]))
    result = {
        "sequences": len(rows),
        "tasks_naive": sum(len(s.tasks) for s, _, _ in rows),
        "tasks_trained": sum(_trained(view) for _, (view, _), _ in rows),
        "seconds_naive": round(sum(seconds for _, _, (_, seconds) in rows), 1),
        "seconds_shared": round(sum(seconds for _, (_, seconds), _ in rows), 1),
        "equal_results": all((a.matrix() == b.matrix()).all() for _, (a, _), (b, _) in rows),
    }
    result["tasks_saved"] = 1 - result["tasks_trained"] / result["tasks_naive"]
    result["time_ratio"] = round(result["seconds_shared"] / result["seconds_naive"], 3)
    return result


def _search(out: Path, max_train: int) -> list[Sequence]:
    def entries() -> Iterator[dict[str, Any]]:
        for rate in RATES:
            training = {"lr": rate}
            yield {"name": f"ft {rate:g}", "tuning": "full", "training": training}
            yield {"name": f"random {rate:g}", "tuning": "full", "plugins": ["random_mask"], "training": training}
            for ratio in RATIOS:
                plugins = [{"name": "migu", "ratio": ratio}]
                yield {"name": f"migu {ratio:g} {rate:g}", "tuning": "full", "plugins": plugins, "training": training}

    config = RunConfig.model_validate(
        {
            "name": "search-reuse",
            "model": {"name": "tiny-t5", "max_source": 64, "max_target": 8},
            "streams": [{"name": "embedded", "max_train": max_train, "max_test": 40}],
            "methods": list(entries()),
            "training": {"global_batch": 16},
            "out": str(out),
        }
    )
    return plan(config)


def _timed(sequence: Sequence) -> tuple[View, float]:
    started = time.monotonic()
    view = run_sequence(sequence)
    return view, time.monotonic() - started


def _trained(view: View) -> int:
    return sum(not task.checkpoint["reused"] for task in view.by_task.values() if task.checkpoint)


def print_search_reuse(result: dict[str, Any], console: Console) -> None:
    """What sharing saved."""
    table = Table(title=f"{result['sequences']} sequences of a search on five tasks", title_justify="left")
    for heading in ("store", "tasks trained", "seconds"):
        table.add_column(heading, justify="right" if heading != "store" else "left")
    table.add_row("one for each sequence", str(result["tasks_naive"]), str(result["seconds_naive"]))
    table.add_row("shared", str(result["tasks_trained"]), str(result["seconds_shared"]))
    console.print(table)
    same = "equal in every cell" if result["equal_results"] else "NOT EQUAL"
    saved = f"{100 * result['tasks_saved']:.0f} % of the tasks were not trained again"
    console.print(f"{saved}; time {result['time_ratio']:.2f} of the naive; accuracy matrices {same}", highlight=False)
