"""TODO orchestrator.search.report"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.report.tables import mean_and_deviation
from orchestrator.search.results import _score
from orchestrator.search.screen import show_values


def print_choice(chosen: dict[str, Any], console: Console) -> None:
    """What the tuning phase chose, in a line a method."""
    for label, method in chosen["methods"].items():
        values = show_values(method["values"])
        console.print(
            f"chosen for {label}: {values} (trial {method['trial']}, {method['score']:.1f} on dev)", highlight=False
        )


def print_search(result: dict[str, Any], console: Console) -> None:
    """The methods in the evaluation beside the tuning, what was chosen at which price, and what a reader needs to believe it."""
    search = result["search"]
    seeds = ", ".join(str(seed) for seed in sorted({s["seed"] for s in result["sequences"]}))
    streams = ", ".join(dict.fromkeys(s["stream"] for s in result["sequences"]))
    tuning = ", ".join(search["tuning_streams"])
    title = f"{result['experiment']}: evaluated on {streams} (test split, seed {seeds}), tuned on {tuning} (dev split)"
    table = _table(title, "evaluation ↑", "tuning", "gap", "BWT ↑", "status")
    for label, method in search["methods"].items():
        runs = [s for s in result["sequences"] if s["method"] == label]
        gap = "–" if method["gap"] is None else f"{method['gap']:+.1f}"
        scores = mean_and_deviation([_score(s, search) for s in runs])
        bwt = mean_and_deviation([s["bwt"] for s in runs])
        states = ", ".join(dict.fromkeys(s["status"] for s in runs))
        table.add_row(label, scores, f"{method['tuning_score']:.1f}", gap, bwt, states)
    console.print(table)
    console.print(_price_table(search))
    for line in notes(search):
        console.print(line, style="dim", highlight=False)


def _table(title: str, *numbers: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("method")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _price_table(search: dict[str, Any]) -> Table:
    """What each method's search chose, and what it cost. Tasks: trained, of those that the trials asked for."""
    table = _table(
        f"chosen by {search['searcher']} search, {search['scheduler']}", "trials", "tasks trained", "seconds"
    )
    table.add_column("values")
    for label, method in search["methods"].items():
        cost, trials = method["cost"], method["trials"]
        count = str(sum(trials.values())) + "".join(f", {n} {k}" for k, n in trials.items() if k != "finished")
        seconds = f"{cost['seconds']:.0f}" + (f" ({cost['gpu_seconds']:.0f} of GPU)" if cost["gpu_seconds"] else "")
        tasks = f"{cost['trained']:g} of {cost['tasks']:g}"
        table.add_row(label, count, tasks, seconds, show_values(method["values"]))
    return table


def notes(search: dict[str, Any]) -> list[str]:
    """The lines below the table: level, proof, ranking, measure, ledger."""
    proof, order = search["proof"], search["ranking"]
    measure = {"aa": "AA (mean score over tasks after the last one)", "aa_options": "AA among each task's options"}
    how = measure[search["metric"]]
    if search["forgetting_weight"]:
        how += f" − {search['forgetting_weight']:g} × forgetting"
    tau = "–" if order["kendall_tau"] is None else f"{order['kendall_tau']:.2f}"
    moved = "the same" if order["tuning"] == order["evaluation"] else f"was {' > '.join(order['tuning'])}"
    lines = [
        f"holdout {proof['level']!r}: {proof['statement']}",
        f"compared {proof['tuning_examples']} tuning texts with {proof['evaluation_examples']} evaluation texts: none in common, "
        f"{proof['near_duplicates']} near-duplicates ({100 * proof['near_duplicate_rate']:.2f} %)"
        if proof["level"] != "none"
        else "tuning and evaluation share their tasks: nothing was held out but the dev split",
        f"ranking in the evaluation: {' > '.join(order['evaluation'])}; in tuning {moved}; Kendall tau {tau} "
        f"over {len(order['evaluation'])} methods",
        f"evaluation and tuning: {how}, in %; gap: tuning − evaluation",
    ]
    lines += _warnings(search)
    lines += [f"related data sets on both sides: {' / '.join(pair)}" for pair in proof["allowed_related_pairs"]]
    return lines + access_lines(search)


def _warnings(search: dict[str, Any]) -> list[str]:
    """What makes the comparison less equal, or less held out, than it looks."""
    lines = [
        f"{label}: its space held {count} of the {search['trials_each']} trials"
        for label, method in search["methods"].items()
        if (count := sum(method["trials"].values())) < search["trials_each"]
    ]
    lines += [f"{label}: no trial finished, so it was not evaluated" for label in search["chosen"]["missing"]]
    if search["select"] == "first-task":
        lines.append(
            "tuned on the first task alone: the tuning score is that of one task, so the gap compares unlike things"
        )
    if search["choices"] > 1:
        lines.append(
            f"values were chosen {search['choices']} times under this name: an evaluation may have been seen before"
        )
    if any(method["trials"].get("failed") for method in search["methods"].values()):
        lines.append("trials that failed run again with --retry-failed")
    return lines


def access_lines(search: dict[str, Any]) -> list[str]:
    """Who read a test split."""
    if not search["test_access_log"]:
        return ["no test split was read"]
    lines = ["test splits were read by (the ledger):"]
    for entry in search["test_access_log"]:
        first = datetime.fromtimestamp(entry["first"] / 1000).strftime("%Y-%m-%d %H:%M:%S")
        names = entry["datasets"]
        which = ", ".join(names) if len(names) < 4 else f"{len(names)} data sets"
        lines.append(f"  {first} {entry['by']}: {which} ({entry['why']})")
    return lines
