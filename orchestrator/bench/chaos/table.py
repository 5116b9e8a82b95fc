"""What the rounds come to, kind by kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

COUNTED = ("lost", "doubled", "differs", "trained_again", "tracebacks")


def summary(played: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each kind: sums over its rounds, and the medians of its seconds over those rounds that were hit."""
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for outcome in played:
        by_kind.setdefault(outcome["kind"], []).append(outcome)
    rows: list[dict[str, Any]] = []
    for kind in sorted(by_kind):
        outcomes = by_kind[kind]
        hit = [outcome for outcome in outcomes if outcome["done"]]
        row: dict[str, Any] = {"kind": kind, "rounds": len(outcomes), "hits": len(hit)}
        for name in COUNTED:
            row[name] = sum(outcome[name] for outcome in outcomes)
        row["not_recovered"] = sum(not outcome["recovered"] for outcome in outcomes)
        row["repeated_s"] = _median([outcome["repeated_s"] for outcome in hit])
        row["recover_s"] = _median([outcome["recover_s"] for outcome in hit])
        rows.append(row)
    return rows


def _median(seconds: Sequence[float]) -> float | None:
    return round(median(seconds), 2) if seconds else None


def has_damage(result: Mapping[str, Any]) -> bool:
    """Whether anything was lost, doubled, other than in the undisturbed run or made twice, or a run did not come back."""
    return not all(outcome["whole"] for outcome in result["played"])


def print_chaos(result: Mapping[str, Any], console: Console) -> None:
    """Print a line for each kind."""
    title = f"{result['rounds']} rounds, seed {result['seed']}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("fault", no_wrap=True)
    for heading in ("hits", "lost", "doubled", "differ", "remade", "not back", "repeated", "back in"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in result["kinds"]:
        cells = [row["kind"], f"{row['hits']}/{row['rounds']}"]
        for name in ("lost", "doubled", "differs", "trained_again", "not_recovered"):
            cells.append(str(row[name]))
        for name in ("repeated_s", "recover_s"):
            cells.append("" if row[name] is None else f"{row[name]:.1f} s")
        table.add_row(*cells)
    console.print(table)
    whole = sum(outcome["whole"] for outcome in result["played"])
    console.print(f"{whole} of {result['rounds']} rounds ended as the undisturbed run", highlight=False)
