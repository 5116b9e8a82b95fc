"""What came out: the table on the screen, the CSV files and the JSON object."""

from __future__ import annotations

import csv
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator import metrics
from orchestrator.experiment import Experiment, tracking_uri
from orchestrator.journal import View
from orchestrator.plan import Sequence

COLUMNS = {
    "aa": "AA ↑",
    "aa_options": "AA opt. ↑",
    "bwt": "BWT ↑",
    "forgetting": "forget. ↓",
    "learning_accuracy": "learned ↑",
}
SPENT = ("steps", "tokens", "flops")
LEGEND = (
    "In %: AA mean score over tasks after the last one · BWT mean change of a task's score since it was learnt · "
    "forget. mean drop from a task's best score · learned mean score of a task right after it was trained · "
    "train what training took, also in tokens and FLOPs where there is room (else see summary.csv)"
)
BOUNDS = {
    "zero-shot": "the untrained model",
    "expert": "each task trained alone; a classifier's answers are then among its own labels",
    "joint": "all tasks trained at once",
}
OPTIONS_LEGEND = " · AA opt. AA when only the task's own options compete"


def sequence_result(sequence: Sequence, view: View) -> dict[str, Any]:
    """All that is known of one sequence: matrix (row 0: before training), metrics, cost, status. What is missing: None."""
    full = view.matrix() if view.tasks else np.full((len(sequence.tasks) + 1, len(sequence.tasks)), np.nan)
    options = view.matrix("score_options") if view.tasks else full * np.nan
    sizes = [view.test_sizes()[j] if view.tasks else 0 for j in range(len(sequence.tasks))]
    complete = not np.isnan(full).any()
    values = metrics.summary(full, sizes) if complete else {}
    if sequence.method.bound:
        values = metrics.of_a_bound(values)
    status = "incomplete" if view.status == "finished" and not complete else view.status
    return {
        "id": sequence.id,
        "method": sequence.method.label,
        "stream": sequence.stream.name,
        "seed": sequence.seed,
        "bound": sequence.method.bound,
        "tasks": list(sequence.tasks),
        "test_sizes": sizes,
        "acc_TT": _plain(full),
        "acc_options_TT": _plain(options) if not np.isnan(options).all() else None,
        **{key: _number(values.get(key)) for key in
           ("aa", "micro_aa", "bwt", "forgetting", "fwt", "average_incremental_accuracy", "learning_accuracy")},
        "aa_options": _number(float(np.mean(options[-1]))),
        "seconds": round(view.seconds, 2),
        **{unit: view.spent(unit) for unit in SPENT},
        "status": status,
        "reason": view.failure or None,
        "left_out": {d["task"]: d["left_out"] for d in (view.start or {}).get("data", []) if any(d["left_out"].values())},
    }  # fmt: skip


def _experts(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Experts as one entry: each task's score by its own, in the place where a sequence has the task just learnt."""
    count = len(parts)
    full, options = np.full((count + 1, count), np.nan), np.full((count + 1, count), np.nan)
    for j, part in enumerate(parts):
        for matrix, name in ((full, "acc_TT"), (options, "acc_options_TT")):
            for row, cells in zip((0, j + 1), part[name] or [], strict=False):
                matrix[row, j] = math.nan if cells[0] is None else cells[0]
    sizes = [part["test_sizes"][0] for part in parts]
    own, own_options = np.diag(full[1:]), np.diag(options[1:])
    states = list(dict.fromkeys(part["status"] for part in parts))
    return parts[0] | {
        "id": re.sub(r"[^A-Za-z0-9.]+", "-", "{method}-{stream}-s{seed}".format(**parts[0])),
        "tasks": [part["tasks"][0] for part in parts],
        "test_sizes": sizes,
        "acc_TT": _plain(full),
        "acc_options_TT": None if np.isnan(options).all() else _plain(options),
        "aa": _number(float(np.mean(own))),
        "aa_options": _number(float(np.mean(own_options))),
        "micro_aa": _number(float(np.average(own, weights=sizes))) if all(sizes) else None,
        "seconds": round(sum(part["seconds"] for part in parts), 2),
        **{
            unit: sum(part[unit] for part in parts) if all(part[unit] is not None for part in parts) else None
            for unit in SPENT
        },
        "status": states[0] if len(states) == 1 else ", ".join(states),
        "reason": next((part["reason"] for part in parts if part["reason"]), None),
        "left_out": {task: counts for part in parts for task, counts in part["left_out"].items()},
    }


def results(experiment: Experiment) -> dict[str, Any]:
    """The JSON object of an experiment. A method's experts, one a task, are one entry of it."""
    together: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
    for sequence, view in zip(experiment.sequences, experiment.views(), strict=True):
        part = sequence_result(sequence, view)
        together[part["method"], part["stream"], part["seed"]].append(part)
    return {
        "experiment": experiment.config.name,
        "sequences": [parts[0] if parts[0]["bound"] != "expert" else _experts(parts) for parts in together.values()],
        "mlflow": tracking_uri(experiment.config),
        "out": experiment.config.out,
        "report": str(experiment.folder / "summary.csv"),
    }


def _plain(matrix: metrics.Matrix) -> list[list[float | None]]:
    return [[_number(float(cell)) for cell in row] for row in matrix]


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 6)


def write_csv(experiment: Experiment, result: dict[str, Any]) -> Path:
    """`summary.csv` with a line a sequence, and `matrix-<sequence>.csv` for each accuracy matrix."""
    keys = ["method", "stream", "seed", "aa", "aa_options", "micro_aa", "bwt", "forgetting", "fwt",
            "average_incremental_accuracy", "learning_accuracy", "seconds", *SPENT, "status"]  # fmt: skip
    summary = experiment.folder / "summary.csv"
    with summary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, keys, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(result["sequences"])
    for sequence in result["sequences"]:
        with (experiment.folder / f"matrix-{sequence['id']}.csv").open("w", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(["after", *sequence["tasks"]])
            for name, row in zip(["(before training)", *sequence["tasks"]], sequence["acc_TT"], strict=True):
                rows.writerow([name, *row])
    return summary


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
        for method, meaning in {s["method"]: BOUNDS[s["bound"]] for s in sequences if s["bound"]}.items():
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
    bounds = {s["method"] for s in sequences if s["bound"]}
    methods = dict.fromkeys(s["method"] for s in sequences)
    for number, method in enumerate(sorted(methods, key=lambda m: m in bounds)):
        if number == len(methods) - len(bounds):
            table.add_section()
        rows = [s for s in sequences if s["method"] == method]
        cells = [mean_and_deviation([r[key] for r in rows]) for key in columns]
        seconds = sum(r["seconds"] for r in rows) / len(rows)
        states = [] if finished else [", ".join(dict.fromkeys(r["status"] for r in rows))]
        table.add_row(method, *cells, f"{seconds:.1f} s", *(_mean_spent(rows, u) for u in units), *states)
    return table


def mean_and_deviation(values: list[float | None]) -> str:
    """`43.0 ± 1.2`, over what is known."""
    known = [v for v in values if v is not None]
    if not known:
        return "–"
    if len(known) == 1:
        return f"{known[0]:.1f}"
    return f"{np.mean(known):.1f} ± {np.std(known, ddof=1):.1f}"


def _mean_spent(rows: list[dict[str, Any]], unit: str) -> str:
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
    for task, counts in (sequences[0]["left_out"] or {}).items():
        said = ", ".join(f"{n} {split} rows" for split, n in counts.items() if n)
        console.print(f"{task}: {said} with a label outside the label set were left out", style="yellow")
    for sequence in sequences:
        if sequence["reason"]:
            console.print(f"{sequence['method']}, seed {sequence['seed']}: {sequence['reason']}", style="red")


def matrix_table(sequence: dict[str, Any]) -> Table:
    """One accuracy matrix."""
    title = f"{sequence['method']}, seed {sequence['seed']}: score (%) on each task after each task"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("after")
    for task in sequence["tasks"]:
        table.add_column(task, justify="right")
    for t, (name, row) in enumerate(zip(["–", *sequence["tasks"]], sequence["acc_TT"], strict=True)):
        cells = ["" if c is None else Text(f"{c:.1f}", style="bold" if j == t - 1 else "") for j, c in enumerate(row)]
        table.add_row(name, *cells)
    return table
