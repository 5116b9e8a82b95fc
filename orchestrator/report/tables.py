"""What came out: the table on the screen, the CSV files and the JSON object."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from methods import REFERENCE_RUNS

COLUMNS = {
    "aa": "AA ↑",
    "aa_options": "AA opt. ↑",
    "bwt": "BWT ↑",
    "forgetting": "forget. ↓",
    "learning_accuracy": "learned ↑",
}


LEGEND = (
    "In %: AA mean score over tasks after the last one · BWT mean change of a task's score since it was learnt · "
    "forget. mean drop from a task's best score · learned mean score of a task right after it was trained · "
    "train what training took, also in tokens and FLOPs where there is room (else see summary.csv)"
)


OPTIONS_LEGEND = " · AA opt. AA when only the task's own options compete"


def print_report(result: dict[str, Any], console: Console) -> None:
    """The table, with mean ± standard deviation where there are several seeds, and what a reader must know beside it."""
    has_options = any(s["aa_options"] is not None for s in result["sequences"])
    columns = {k: v for k, v in COLUMNS.items() if k != "aa_options" or has_options}
    by_stream: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for sequence in result["sequences"]:
        by_stream[sequence["stream"]].append(sequence)
    for stream, sequences in by_stream.items():
        seeds = sorted({s["seed"] for s in sequences})
        title = (
            f"{result['experiment']}: {stream}, {len(sequences[0]['tasks'])} tasks, seed {', '.join(map(str, seeds))}"
        )
        tables = [_table(title, sequences, columns, units) for units in (("tokens", "flops"), ("flops",), ())]
        wide = console.options.update(width=1000)
        console.print(
            next((t for t in tables if console.measure(t, options=wide).maximum <= console.width), tables[-1])
        )
        for method, meaning in {
            s["method"]: REFERENCE_RUNS[s["reference"]].sentence for s in sequences if s["reference"]
        }.items():
            console.print(f"{method}: {meaning}", style="dim", highlight=False)
        _print_notes(sequences, console)
    console.print(LEGEND + (OPTIONS_LEGEND if has_options else ""), style="dim", highlight=False)


def _table(title: str, sequences: list[dict[str, Any]], columns: dict[str, str], units: tuple[str, ...]) -> Table:
    """A line a method. Of what training took, the time and the given units: the screen may be narrow."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for heading in (*columns.values(), "train", *({"flops": "FLOPs"}.get(u, u) for u in units)):
        table.add_column(heading, justify="right")
    finished = all(s["status"] == "finished" for s in sequences)
    if not finished:
        table.add_column("status")
    reference_runs = {s["method"] for s in sequences if s["reference"]}
    methods = dict.fromkeys(s["method"] for s in sequences)
    for number, method in enumerate(sorted(methods, key=lambda m: m in reference_runs)):
        if number == len(methods) - len(reference_runs):
            table.add_section()
        rows = [s for s in sequences if s["method"] == method]
        cells = [mean_and_deviation([r[key] for r in rows]) for key in columns]
        seconds = sum(r["seconds"] for r in rows) / len(rows)
        states = [] if finished else [", ".join(dict.fromkeys(r["status"] for r in rows))]
        table.add_row(method, *cells, f"{seconds:.1f} s", *(_mean_usage(rows, u) for u in units), *states)
    return table


def mean_and_deviation(values: list[float | None]) -> str:
    """`43.0 ± 1.2`, over what is known."""
    known = [v for v in values if v is not None]
    if not known:
        return "–"
    if len(known) == 1:
        return f"{known[0]:.1f}"
    return f"{np.mean(known):.1f} ± {np.std(known, ddof=1):.1f}"


def _mean_usage(rows: list[dict[str, Any]], unit: str) -> str:
    """`41.2k` tokens, `3.1e12` FLOPs."""
    known = [r[unit] for r in rows if r.get(unit) is not None]
    if not known:
        return "–"
    mean = float(np.mean(known))
    if not mean:
        return "0"
    if unit == "flops":
        digits, exponent = f"{mean:.1e}".split("e")
        return f"{digits}e{int(exponent)}"
    scale, letter = next((s, c) for s, c in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")) if mean >= s or s == 1)
    return f"{mean / scale:.1f}{letter}"


def _print_notes(sequences: list[dict[str, Any]], console: Console) -> None:
    for task, counts in (sequences[0]["dropped_rows"] or {}).items():
        said = ", ".join(f"{n} {split} rows" for split, n in counts.items() if n)
        console.print(f"{task}: {said} with a label outside the label set were left out", style="yellow")
    for sequence in sequences:
        if sequence["reason"]:
            # soft_wrap: the path of a log can be copied only from one line
            console.print(failure_line(sequence), style="red", highlight=False, soft_wrap=True)


def failure_line(sequence: dict[str, Any]) -> str:
    """What failed, where, and the path of the log that has the whole traceback."""
    failure = sequence["failure"] or {}
    line = f"{sequence['method']}, seed {sequence['seed']}"
    if failure.get("task"):
        line += f", task {failure['task']!r}"
    if failure.get("step"):
        line += f", step {failure['step']}"
    if failure.get("worker"):
        line += f", worker {failure['worker']}"
    line += f": {sequence['reason']}"
    if failure.get("log"):
        line += f"; log: {failure['log']}"
    return line


def matrix_table(sequence: dict[str, Any]) -> Table:
    """One accuracy matrix."""
    title = f"{sequence['method']}, seed {sequence['seed']}: score (%) on each task after each task"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("after")
    for task in sequence["tasks"]:
        table.add_column(task, justify="right")
    for t, (name, row) in enumerate(zip(["–", *sequence["tasks"]], sequence["accuracy_matrix"], strict=True)):
        cells = ["" if c is None else Text(f"{c:.1f}", style="bold" if j == t - 1 else "") for j, c in enumerate(row)]
        table.add_row(name, *cells)
    return table
