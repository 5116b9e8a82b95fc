"""What a search found: both phases in one table, the choice, its cost, and who read a test split."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import kendalltau

from orchestrator.planning.experiment import Experiment
from orchestrator.report.results import results
from orchestrator.search.plots import draw
from orchestrator.search.trial_store import TrialStore
from orchestrator.search.trials import Cost
from orchestrator.store.events import SearchChosen
from orchestrator.store.journal import Tail
from orchestrator.store.test_access_log import TestAccessLog

if TYPE_CHECKING:
    from orchestrator.search.definition import Search


def save_phase_1(search: Search, trial_store: TrialStore, chosen: dict[str, Any]) -> list[Path]:
    """Write what the report needs of the tuning phase, and the pictures. Returns the files, for MLflow."""
    folder = search.folder
    sides = {
        "tuning": [search.planner.stream(s, "dev") for s in search.settings.streams],
        "evaluation": [search.planner.stream(s) for s in search.config.streams],
    }
    trials = [_trial_row(trial_store, trial.key) for trial in trial_store.all()]
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
        "choices": sum(isinstance(e, SearchChosen) for e in Tail(folder).new_events()),
        "spaces": {c.label: {n: d.model_dump(mode="json") for n, d in c.space.items()} for c in search.method_searches},
        "trials": trials,
        "chosen": {k: v for k, v in chosen.items() if k not in ("definition", "search")},
    }
    (folder / "search.json").write_text(json.dumps(content, indent=1))
    _write_trials(
        folder / "trials.csv", list(dict.fromkeys(n for c in search.method_searches for n in c.space)), trials
    )
    pictures = draw(trial_store, search.method_searches, folder)
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


def _trial_row(trial_store: TrialStore, key: str) -> dict[str, Any]:
    trial, end = trial_store.trials[key], trial_store.ends.get(key)
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
    tuning["test_access_log"] = access_summary(TestAccessLog(Path(experiment.config.out)).entries(), result, tuning)
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


def access_summary(
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
