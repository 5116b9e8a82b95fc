"""What a search found, as values: both phases in one object, the choice, its cost, and who read a test split.

`search.json`, beside the search's journal, is the tuning phase (scores and metrics in the scorers' unit, on dev):

    search, metric, forgetting_weight, select, searcher, scheduler      as in the recipe
    measure         {unit, better, digits} of all scores; where lower is better, a trial's score is -metric: more is better
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

    methods         label -> {values, tuning_score, evaluation_score, drop (tuning - evaluation), conventional_score,
                    gap (conventional - evaluation), runs, cost, trials by status, is_reference}
    ranking         {tuning, evaluation, conventional}: methods, the best first; kendall_tau of the evaluation with tuning,
                    kendall_tau_conventional of the evaluation with the conventional search
    conventional    the name of the search that was tuned on the evaluation streams themselves (see `conventional`), or None
    test_access_log who read a test split of either side: {by, why, datasets, readings, first, last} (times in ms)
    summary         kendall_tau and each method's scores, drop, gap and runs under one name each, as MLflow gets them

`runs` are those of the evaluation, {finished, planned}: a method has no score in it, and no rank, before all have finished.
`gap` is that of arXiv 2403.09066: what the usual protocol, tuning where one evaluates, promises too much. It is None without
such a search. `drop` needs none, but compares scores on two streams, of which one may just be the harder.

`trials.csv` has a line a trial: method, number, status, score, tasks, a column for each parameter and each metric, then
asked, trained, seconds, gpu_seconds and reason.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from orchestrator.config.method import MethodEntry
from orchestrator.errors import UserError
from orchestrator.evaluation.measure import Measure
from orchestrator.planning.experiment import Experiment
from orchestrator.report.results import results
from orchestrator.search.choice import choices_made
from orchestrator.search.conventional import conventional_search
from orchestrator.search.space import parameters_of
from orchestrator.search.trial_store import TrialStore
from orchestrator.search.trials import Cost, score_of
from orchestrator.storage.places import folder_at
from orchestrator.store.access_log import TestAccessLog
from orchestrator.store.integrity import seal, unseal_file, write_whole

SEARCH = "search.json"

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
    search_file = folder / SEARCH
    write_whole(search_file, seal(content) + b"\n")
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
    if not (experiment.folder / "search" / SEARCH).exists():
        return False
    chosen = _read_search(experiment)["chosen"]["methods"]
    for sequence in experiment.sequences:
        label = sequence.method.label
        if label not in chosen or sequence.method.model_dump(mode="json") != chosen[label]["entry"]:
            return False
    return True


def _read_search(experiment: Experiment) -> dict[str, Any]:
    """What `save_tuning_results` wrote in `search.json`. Raises UserError where it is damaged."""
    file = experiment.folder / "search" / SEARCH
    try:
        return unseal_file(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: damaged ({error}); the same `orchestrator tune` command writes it anew") from None


def search_results(experiment: Experiment) -> dict[str, Any]:
    """The JSON object of a search: that of its evaluation, and under `search` the tuning phase and what follows from both."""
    result, search = _both_phases(experiment)
    methods = search["methods"]
    conventional = conventional_search(experiment)
    search["conventional"] = None
    if conventional and is_search(conventional):
        search["conventional"] = conventional.config.name
        _, usual = _both_phases(conventional)
        for label, method in methods.items():
            add_gap(method, usual["methods"].get(label))
    search["ranking"] = ranking(methods)
    # Of both sides: a test split of a tuning stream that was read is as much a breach.
    log = TestAccessLog(folder_at(experiment.config.out)).entries()
    datasets = {*search["datasets"]["tuning"], *search["datasets"]["evaluation"]}
    search["test_access_log"] = access_summary(log, result["experiment"], datasets)
    search["summary"] = _summary(search)
    return result | {"search": search}


def _both_phases(experiment: Experiment) -> tuple[dict[str, Any], dict[str, Any]]:
    """The results of a search's evaluation, and its tuning phase's object with each method in both phases."""
    result = results(experiment)
    # From the file, not from the trials: to plan these would read the data, which a report need not have.
    search = _read_search(experiment)
    methods = {}
    for label in search["chosen"]["methods"]:
        methods[label] = method_result(label, search, of_method(result["sequences"], label))
    search["methods"] = methods
    return result, search


def method_result(label: str, search: dict[str, Any], sequences: list[dict[str, Any]]) -> dict[str, Any]:
    """A method in both phases, from the tuning phase's object and the results of its sequences in the evaluation."""
    chosen = search["chosen"]["methods"][label]
    trials = of_method(search["trials"], label)
    evaluation_score = None
    drop = None
    scores = []
    for sequence in sequences:
        score = evaluation_score_of(sequence, search)
        if score is not None:
            scores.append(score)
    # A mean over the runs that survived would beat that of a method whose weak runs count too.
    if scores and len(scores) == len(sequences):
        evaluation_score = float(np.mean(scores))
        # Above 0: the tuning promised more than the evaluation kept.
        drop = round(chosen["score"] - evaluation_score, 6)
    return {
        "values": chosen["values"],
        "tuning_score": chosen["score"],
        "evaluation_score": evaluation_score,
        "drop": drop,
        "conventional_score": None,
        "gap": None,
        "runs": {"finished": len(scores), "planned": len(sequences)},
        "cost": _total_cost(trials),
        "trials": dict(Counter(column(trials, "status"))),
        "is_reference": _is_reference(chosen["entry"]),
    }


def _is_reference(entry: dict[str, Any]) -> bool:
    """Whether a method is there to be compared with: a reference run, or one that has nothing to choose (the class means)."""
    method = MethodEntry.model_validate(entry)
    return method.reference is not None or not parameters_of(method)


def add_gap(method: dict[str, Any], conventional: dict[str, Any] | None) -> None:
    """Give a method its score in the conventional search, and the gap: what that lies above the held-out one."""
    # Values that were chosen where they are evaluated are worth a comparison only if both sides have all of their runs.
    if conventional is None or conventional["evaluation_score"] is None or method["evaluation_score"] is None:
        return
    method["conventional_score"] = conventional["evaluation_score"]
    method["gap"] = round(conventional["evaluation_score"] - method["evaluation_score"], 6)


def of_method(items: list[dict[str, Any]], label: str) -> list[dict[str, Any]]:
    """Those of a list of trials or sequences that are a method's."""
    return [item for item in items if item["method"] == label]


def column(items: list[dict[str, Any]], name: str) -> list[Any]:
    """One field of each item."""
    return [item[name] for item in items]


def evaluation_score_of(sequence: dict[str, Any], search: dict[str, Any]) -> float | None:
    """A sequence's score on the test split, by the measure that the search used; None unless it has finished."""
    if sequence["status"] != "finished":
        return None
    score = score_of(sequence, search["metric"], search["forgetting_weight"], measure_of_search(search).better)
    return None if score is None else float(score)


def measure_of_search(search: dict[str, Any]) -> Measure:
    """The measure of a search's scores; searches of before there were several have none."""
    return Measure(**search.get("measure", {}))


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
        for name in ("tuning_score", "evaluation_score", "drop"):
            summary[f"{label}/{name}"] = method[name]
        for name, count in method["runs"].items():
            summary[f"{label}/runs_{name}"] = count
        if method["gap"] is not None:
            summary[f"{label}/conventional_score"] = method["conventional_score"]
            summary[f"{label}/gap"] = method["gap"]
    return summary


def ranking(methods: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The methods in the order of each phase, the best first, and Kendall's tau-b between the two.

    Tau is 1 for the same order, -1 for the reverse, None for fewer than two methods. Left out are methods without a score
    in the evaluation, and what the methods are only compared with: joint training comes first in both orders, the
    untrained model last, and tau would be near 1 whatever the methods between them did.
    """
    tuning = {}
    evaluation = {}
    conventional = {}
    for label, method in methods.items():
        if method["evaluation_score"] is None or method["is_reference"]:
            continue
        tuning[label] = method["tuning_score"]
        evaluation[label] = method["evaluation_score"]
        if method["conventional_score"] is not None:
            conventional[label] = method["conventional_score"]
    return {
        "tuning": _best_first(tuning),
        "evaluation": _best_first(evaluation),
        "conventional": _best_first(conventional),
        "kendall_tau": _kendall_tau(tuning, evaluation),
        "kendall_tau_conventional": _kendall_tau(conventional, evaluation),
    }


def _best_first(scores: dict[str, float]) -> list[str]:
    return sorted(scores, key=scores.__getitem__, reverse=True)


def _kendall_tau(one: dict[str, float], other: dict[str, float]) -> float | None:
    """Kendall's tau-b of two scores of the same methods, those that only one side has left out."""
    common = [label for label in one if label in other]
    if len(common) < 2:
        return None
    statistic = float(kendalltau([one[label] for label in common], [other[label] for label in common]).statistic)
    # Undefined where all methods have the same score.
    return None if np.isnan(statistic) else round(statistic, 4)


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
