"""What a search found, as values: both phases in one object, the choice, its cost, and who read a test split.

`search.json`, beside the search's journal, is the tuning phase (scores and metrics in % or percentage points, on dev):

    search, metric, forgetting_weight, select, searcher, scheduler      as in the recipe
    tuning_streams, tuning_seeds, trials_each                           names; seeds; trials that each method may have
    datasets        {tuning, evaluation}: names of the data sets on each side
    proof           what was compared, and what was found (see `streams.holdout.Proof`)
    scenario        [train examples, steps or budget] of each task, in order of size
    memory          method -> share of each earlier task's examples that it keeps, for those that keep any; all the same
    spaces          method -> parameter -> {values} or {low, high, log, integer}
    trials          a list of {method, number, values, status, tasks, score, metrics, cost, reason}; status: finished,
                    stopped, failed or `not ended`; cost: {tasks asked for, trained, seconds, gpu_seconds}
    choices         how many times values were chosen under this name
    chosen          `chosen.json` without its names: holdout, select, trials_sha256, missing, sha256, and methods:
                    label -> {values, trial, score, entry}

`search_results` adds, once the chosen values are evaluated (scores on test):

    methods         label -> {values, tuning_score, evaluation_score, gap (tuning - evaluation), cost, trials by status}
    ranking         {tuning, evaluation}: methods, the best first; kendall_tau between the two
    test_access_log who read a test split of either side: {by, why, datasets, readings, first, last} (times in ms)
    summary         kendall_tau and each method's scores and gap under one name each, as MLflow gets them

`trials.csv` has a line a trial: method, number, status, score, tasks, a column for each parameter and each metric, then
asked, trained, seconds, gpu_seconds and reason.
"""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from orchestrator.planning.experiment import Experiment
from orchestrator.report.results import results
from orchestrator.search.choice import choices_made
from orchestrator.search.trial_store import TrialStore
from orchestrator.search.trials import Cost, score_of
from orchestrator.store.test_access_log import TestAccessLog

# What a trial's line says while there is no result.
_NO_RESULT = {"status": "not ended", "tasks": 0, "score": None, "metrics": {}, "cost": {}, "reason": ""}


def save_tuning_results(
    folder: Path, description: dict[str, Any], trial_store: TrialStore, chosen: dict[str, Any]
) -> list[Path]:
    """Write `search.json` and `trials.csv`: the search's description, its trials and the choice. Returns the files."""
    trials = []
    for trial in trial_store.all_trials():
        facts: dict[str, Any] = {"method": trial.method, "number": trial.number, "values": trial.values}
        result = trial_store.results.get(trial.key)
        trials.append(facts | (asdict(result) if result else _NO_RESULT))
    choice = dict(chosen)
    # The search is named above, and its definition is of use to the search alone.
    del choice["search"]
    del choice["definition"]
    content = description | {"choices": len(choices_made(folder)), "trials": trials, "chosen": choice}
    search_file = folder / "search.json"
    search_file.write_text(json.dumps(content, indent=1))
    trials_file = folder / "trials.csv"
    _write_trials(trials_file, description["spaces"], trials)
    return [search_file, trials_file]


def _write_trials(file: Path, spaces: dict[str, Any], trials: list[dict[str, Any]]) -> None:
    # Dicts for their order: each name once, where it first comes.
    parameters: dict[str, None] = {}
    for space in spaces.values():
        parameters |= dict.fromkeys(space)
    metrics: dict[str, None] = {}
    for trial in trials:
        metrics |= dict.fromkeys(trial["metrics"])
    identity = ["method", "number", "status", "score", "tasks"]
    cost = ["asked", "trained", "seconds", "gpu_seconds"]
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*identity, *parameters, *metrics, *cost, "reason"], extrasaction="ignore")
        writer.writeheader()
        for trial in trials:
            # `tasks` of the cost counts those of all sequences, `tasks` of a trial those of one.
            asked = {"asked": trial["cost"].get("tasks")}
            writer.writerow({**trial["cost"], **asked, **trial["values"], **trial["metrics"], **trial})


def is_search(experiment: Experiment) -> bool:
    """Whether an experiment is the evaluation phase of a search, with the values that it chose."""
    file = experiment.folder / "search" / "search.json"
    if not file.exists():
        return False
    chosen = json.loads(file.read_text())["chosen"]["methods"]
    for sequence in experiment.sequences:
        label = sequence.method.label
        if label not in chosen or sequence.method.model_dump(mode="json") != chosen[label]["entry"]:
            return False
    return True


def search_results(experiment: Experiment) -> dict[str, Any]:
    """The JSON object of a search: that of its evaluation, and under `search` the tuning phase and what follows from both."""
    result = results(experiment)
    # From the file, not from the trials: to plan these would read the data, which a report need not have.
    search: dict[str, Any] = json.loads((experiment.folder / "search" / "search.json").read_text())
    methods = {}
    for label in search["chosen"]["methods"]:
        methods[label] = method_result(label, search, of_method(result["sequences"], label))
    search["methods"] = methods
    search["ranking"] = ranking(methods)
    # Of both sides: a test split of a tuning stream that was read is as much a breach.
    log = TestAccessLog(Path(experiment.config.out)).entries()
    datasets = {*search["datasets"]["tuning"], *search["datasets"]["evaluation"]}
    search["test_access_log"] = access_summary(log, result["experiment"], datasets)
    search["summary"] = _summary(search)
    return result | {"search": search}


def method_result(label: str, search: dict[str, Any], sequences: list[dict[str, Any]]) -> dict[str, Any]:
    """A method in both phases, from the tuning phase's object and the results of its sequences in the evaluation."""
    chosen = search["chosen"]["methods"][label]
    trials = of_method(search["trials"], label)
    evaluation_score = None
    gap = None
    known = []
    for sequence in sequences:
        score = evaluation_score_of(sequence, search)
        if score is not None:
            known.append(score)
    if known:
        evaluation_score = float(np.mean(known))
        # Above 0: the tuning promised more than the evaluation kept.
        gap = round(chosen["score"] - evaluation_score, 6)
    return {
        "values": chosen["values"],
        "tuning_score": chosen["score"],
        "evaluation_score": evaluation_score,
        "gap": gap,
        "cost": _total_cost(trials),
        "trials": dict(Counter(column(trials, "status"))),
    }


def of_method(items: list[dict[str, Any]], label: str) -> list[dict[str, Any]]:
    """Those of a list of trials or sequences that are a method's."""
    return [item for item in items if item["method"] == label]


def column(items: list[dict[str, Any]], name: str) -> list[Any]:
    """One field of each item."""
    return [item[name] for item in items]


def evaluation_score_of(sequence: dict[str, Any], search: dict[str, Any]) -> float | None:
    """A sequence's score on the test split in %, by the measure that the search used; None while scores are missing."""
    score = score_of(sequence, search["metric"], search["forgetting_weight"])
    return None if score is None else float(score)


def _total_cost(trials: list[dict[str, Any]]) -> dict[str, float]:
    total = {}
    for field in fields(Cost):
        amount: float = 0
        for trial in trials:
            # A trial that has not ended has no cost yet.
            amount += trial["cost"].get(field.name, 0)
        total[field.name] = round(amount, 2)
    return total


def _summary(search: dict[str, Any]) -> dict[str, Any]:
    summary = {"kendall_tau": search["ranking"]["kendall_tau"]}
    for label, method in search["methods"].items():
        for name in ("tuning_score", "evaluation_score", "gap"):
            summary[f"{label}/{name}"] = method[name]
    return summary


def ranking(methods: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The methods in the order of each phase, the best first, and Kendall's tau-b between the two.

    Tau is 1 for the same order, -1 for the reverse, None for fewer than two methods. Methods that were not evaluated are
    left out.
    """
    tuning = {}
    evaluation = {}
    for label, method in methods.items():
        if method["evaluation_score"] is not None:
            tuning[label] = method["tuning_score"]
            evaluation[label] = method["evaluation_score"]
    tau = None
    if len(evaluation) > 1:
        statistic = float(kendalltau(list(tuning.values()), list(evaluation.values())).statistic)
        # Undefined where all methods have the same score.
        if not np.isnan(statistic):
            tau = round(statistic, 4)
    return {
        "tuning": sorted(tuning, key=tuning.__getitem__, reverse=True),
        "evaluation": sorted(evaluation, key=evaluation.__getitem__, reverse=True),
        "kendall_tau": tau,
    }


def access_summary(log: list[dict[str, Any]], experiment: str, datasets: set[str]) -> list[dict[str, Any]]:
    """Who read the test splits of these data sets, in any experiment: one entry for each reader and reason."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for entry in log:
        if entry["dataset"] not in datasets:
            continue
        reader = entry["by"]
        if entry["experiment"] != experiment:
            reader += f" of {entry['experiment']}"
        groups[reader, entry["why"]].append(entry)
    summary = []
    for (reader, why), entries in groups.items():
        names = set(column(entries, "dataset"))
        # The log comes oldest first.
        summary.append(
            {
                "by": reader,
                "why": why,
                "datasets": sorted(names),
                "readings": len(entries),
                "first": entries[0]["time"],
                "last": entries[-1]["time"],
            }
        )
    return summary
