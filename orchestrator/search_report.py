"""What a search found: both phases in one table, the choice, its cost, and who read a test split."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from orchestrator.experiment import Experiment
from orchestrator.journal import Tail
from orchestrator.ledger import Ledger
from orchestrator.pictures import draw
from orchestrator.progress import show_values
from orchestrator.report import mean_and_deviation, results
from orchestrator.trials import Cost, TrialBook

if TYPE_CHECKING:
    from orchestrator.search import Search


def save_phase_1(search: Search, book: TrialBook, chosen: dict[str, Any]) -> list[Path]:
    """Write what the report needs of the tuning phase, and the pictures. Returns the files, for MLflow."""
    folder = search.folder
    sides = {
        "tuning": [search.planner.stream(s, "dev") for s in search.settings.streams],
        "evaluation": [search.planner.stream(s) for s in search.config.streams],
    }
    trials = [_trial_row(book, trial.key) for trial in book.all()]
    content = {
        "search": search.config.name,
        "metric": search.settings.metric,
        "forgetting_weight": search.settings.forgetting_weight,
        "select": search.settings.select,
        "searcher": search.settings.searcher,
        "scheduler": search.settings.scheduler,
        "proof": search.proof.as_dict(),
        "scenario": search.scenario,
        "tuning_streams": [s.name for s in search.settings.streams],
        "tuning_seeds": list(search.settings.seeds),
        "trials_each": search.settings.trials,
        "datasets": {side: sorted({t.dataset for s in streams for t in s.tasks}) for side, streams in sides.items()},
        "choices": sum(e["event"] == "search_chosen" for e in Tail(folder).new_events()),
        "spaces": {c.label: {n: d.model_dump(mode="json") for n, d in c.space.items()} for c in search.contenders},
        "trials": trials,
        "chosen": {k: v for k, v in chosen.items() if k not in ("definition", "search")},
    }
    (folder / "search.json").write_text(json.dumps(content, indent=1))
    _write_trials(folder / "trials.csv", list(dict.fromkeys(n for c in search.contenders for n in c.space)), trials)
    pictures = draw(book, search.contenders, folder)
    return [folder / "chosen.json", folder / "search.json", folder / "trials.csv", *pictures]


def _write_trials(file: Path, parameters: list[str], trials: list[dict[str, Any]]) -> None:
    """A line a trial: its values, metrics and cost."""
    metrics = list(dict.fromkeys(key for row in trials for key in row["metrics"]))
    heads = ["method", "number", "status", "score", "tasks", *parameters, *metrics, "asked", "trained", "seconds"]
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*heads, "gpu_seconds", "reason"], extrasaction="ignore")
        writer.writeheader()
        for row in trials:
            cost = {**row["cost"], "asked": row["cost"].get("tasks")}
            writer.writerow({**cost, **row["values"], **row["metrics"], **row})


def _trial_row(book: TrialBook, key: str) -> dict[str, Any]:
    trial, end = book.trials[key], book.ends.get(key)
    row: dict[str, Any] = {"method": trial.method, "number": trial.number, "values": trial.values}
    empty = {"status": "not ended", "tasks": 0, "score": None, "metrics": {}, "cost": {}, "reason": ""}
    return row | (asdict(end) if end else empty)


def is_search(experiment: Experiment) -> bool:
    """Whether an experiment is the evaluation phase of a search, with the values that it chose."""
    file = experiment.folder / "search" / "search.json"
    if not file.exists():
        return False
    chosen = json.loads(file.read_text())["chosen"]["methods"]
    found = {s.method.label: s.method.model_dump(mode="json") for s in experiment.sequences}
    return all(label in chosen and entry == chosen[label]["entry"] for label, entry in found.items())


def search_results(experiment: Experiment) -> dict[str, Any]:
    """The JSON object of a search: that of its evaluation, and under `search` the tuning phase and what follows from both."""
    result = results(experiment)
    tuning = json.loads((experiment.folder / "search" / "search.json").read_text())
    methods = {}
    for label, chosen in tuning["chosen"]["methods"].items():
        runs = [s for s in result["sequences"] if s["method"] == label]
        scores = [_score(s, tuning) for s in runs]
        known = [s for s in scores if s is not None]
        mean = float(np.mean(known)) if known else None
        methods[label] = {
            "values": chosen["values"],
            "tuning_score": chosen["score"],
            "evaluation_score": mean,
            "gap": None if mean is None else round(chosen["score"] - mean, 6),
            "cost": _total_cost([t for t in tuning["trials"] if t["method"] == label]),
            "trials": _statuses([t for t in tuning["trials"] if t["method"] == label]),
        }
    tuning["methods"] = methods
    tuning["ranking"] = ranking(methods)
    tuning["ledger"] = ledger_summary(Ledger(Path(experiment.config.out)).entries(), result, tuning)
    tuning["summary"] = {
        "kendall_tau": tuning["ranking"]["kendall_tau"],
        **{
            f"{label}/{key}": m[key]
            for label, m in methods.items()
            for key in ("tuning_score", "evaluation_score", "gap")
        },
    }
    return result | {"search": tuning}


def _score(sequence: dict[str, Any], tuning: dict[str, Any]) -> float | None:
    """A sequence's score on the test split, by the measure that the search used."""
    main = sequence[tuning["metric"]]
    if main is None:
        return None
    return float(main) - tuning["forgetting_weight"] * (sequence["forgetting"] or 0.0)


def _total_cost(trials: list[dict[str, Any]]) -> dict[str, float]:
    return {key: round(sum(t["cost"].get(key, 0) for t in trials), 2) for key in Cost.__dataclass_fields__}


def _statuses(trials: list[dict[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for trial in trials:
        counts[trial["status"]] += 1
    return dict(counts)


def ranking(methods: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The methods in the order of each phase, and Kendall's tau-b between the two (None for fewer than two methods)."""
    known = {label: m for label, m in methods.items() if m["evaluation_score"] is not None}
    tuning, evaluation = ([m[key] for m in known.values()] for key in ("tuning_score", "evaluation_score"))
    tau = float(kendalltau(tuning, evaluation).statistic) if len(known) > 1 else float("nan")
    return {
        "tuning": sorted(known, key=lambda label: -known[label]["tuning_score"]),
        "evaluation": sorted(known, key=lambda label: -known[label]["evaluation_score"]),
        "kendall_tau": None if np.isnan(tau) else round(tau, 4),
    }


def ledger_summary(
    entries: list[dict[str, Any]], result: dict[str, Any], tuning: dict[str, Any]
) -> list[dict[str, Any]]:
    """The readings of the test splits of both sides, one line for each reader and reason."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    sides = {*tuning["datasets"]["tuning"], *tuning["datasets"]["evaluation"]}
    for entry in entries:
        if entry["dataset"] in sides:  # also in other experiments of the output folder
            elsewhere = "" if entry["experiment"] == result["experiment"] else f" of {entry['experiment']}"
            groups[entry["by"] + elsewhere, entry["why"]].append(entry)
    return [
        {
            "by": by,
            "why": why,
            "datasets": sorted({e["dataset"] for e in found}),
            "readings": len(found),
            "first": found[0]["time"],
            "last": found[-1]["time"],
        }
        for (by, why), found in groups.items()
    ]


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
    lines += [f"related data sets on both sides: {' / '.join(pair)}" for pair in proof["straddling"]]
    return lines + ledger_lines(search)


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


def ledger_lines(search: dict[str, Any]) -> list[str]:
    """Who read a test split."""
    if not search["ledger"]:
        return ["no test split was read"]
    lines = ["test splits were read by (the ledger):"]
    for entry in search["ledger"]:
        first = datetime.fromtimestamp(entry["first"] / 1000).strftime("%Y-%m-%d %H:%M:%S")
        names = entry["datasets"]
        which = ", ".join(names) if len(names) < 4 else f"{len(names)} data sets"
        lines.append(f"  {first} {entry['by']}: {which} ({entry['why']})")
    return lines
