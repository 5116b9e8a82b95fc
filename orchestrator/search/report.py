"""A search on the screen when it is done: what was chosen, both phases in a table, and what a reader must know beside it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.evaluation.measure import PERCENT, Measure
from orchestrator.evaluation.metrics import METRICS
from orchestrator.report.numbers import mean_and_deviation
from orchestrator.search.results import column, evaluation_score_of, measure_of_search, of_method
from orchestrator.search.screen import show_values

DEVIATION_LEGEND = "a ± b: mean and sample standard deviation (n - 1) over seeds and streams"


def print_choice(chosen: dict[str, Any], console: Console, measure: Measure = PERCENT) -> None:
    """What the tuning phase chose, in a line a method."""
    for label, method in chosen["methods"].items():
        values = show_values(method["values"])
        score = f"{method['score']:.{measure.digits}f}"
        line = f"chosen for {label}: {values} (trial {method['trial']}, {score} on dev)"
        console.print(line, highlight=False)


def print_search(result: dict[str, Any], console: Console) -> None:
    """The methods in the evaluation beside the tuning, what was chosen at which cost, and what a reader needs to believe it."""
    console.print(_score_table(result))
    if len(result["sequences"]) > len(result["search"]["methods"]):
        console.print(DEVIATION_LEGEND, style="dim", highlight=False)
    console.print(_cost_table(result["search"]))
    for line in notes(result["search"]):
        console.print(line, style="dim", highlight=False)


def _score_table(result: dict[str, Any]) -> Table:
    search = result["search"]
    seeds = ", ".join(map(str, sorted(set(column(result["sequences"], "seed")))))
    streams = ", ".join(dict.fromkeys(column(result["sequences"], "stream")))
    tuning_streams = ", ".join(search["tuning_streams"])
    title = f"{result['experiment']}: evaluated on {streams} (test split, seed {seeds}), tuned on {tuning_streams} (dev split)"
    measure = measure_of_search(search)
    # a trial's score is turned so that more is better, whichever way the scorer has it
    headings = ["evaluation ↑", "tuning", "drop"]
    if search["conventional"]:
        headings.append("gap")
    table = _empty_table(title, *headings, METRICS["bwt"].heading(measure), "status")
    for label, method in search["methods"].items():
        sequences = of_method(result["sequences"], label)
        states = dict.fromkeys(column(sequences, "status"))
        # A mean over the runs that did not fail would be no score of the method.
        evaluation = runs_of(method)
        bwt = "–"
        if method["evaluation_score"] is not None:
            evaluation = mean_and_deviation(
                [evaluation_score_of(sequence, search) for sequence in sequences], measure.digits
            )
            bwt = mean_and_deviation(column(sequences, "bwt"), measure.digits)
        tuning = f"{method['tuning_score']:.{measure.digits}f}"
        cells = [label, evaluation, tuning, _signed(method["drop"], measure.digits)]
        if search["conventional"]:
            cells.append(_signed(method["gap"], measure.digits))
        table.add_row(*cells, bwt, ", ".join(states))
    return table


def _signed(points: float | None, digits: int) -> str:
    return "–" if points is None else f"{points:+.{digits}f}"


def runs_of(method: dict[str, Any]) -> str:
    """How many of a method's runs of the evaluation have finished, such as `1 of 2 runs`."""
    return f"{method['runs']['finished']} of {method['runs']['planned']} runs"


def _empty_table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("method")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _cost_table(search: dict[str, Any]) -> Table:
    """What each method's search chose, and what it cost. Tasks: trained, of those that the trials asked for."""
    title = f"chosen by {search['searcher']} search, {search['scheduler']}"
    table = _empty_table(title, "trials", "tasks trained", "seconds")
    table.add_column("values")
    for label, method in search["methods"].items():
        cost = method["cost"]
        count = str(sum(method["trials"].values()))
        for status, number in method["trials"].items():
            if status != "finished":
                count += f", {number} {status}"
        seconds = f"{cost['seconds']:.0f}"
        if cost["gpu_seconds"]:
            seconds += f" ({cost['gpu_seconds']:.0f} of GPU)"
        tasks = f"{cost['trained']:g} of {cost['tasks']:g}"
        table.add_row(label, count, tasks, seconds, show_values(method["values"]))
    return table


# what the check for leaks, which reads all splits of an evaluation stream, may not see of a tuning stream
SEALED = "within tuning streams train was compared with dev alone: their test splits are sealed"


def notes(search: dict[str, Any]) -> list[str]:
    """The lines below the table: level, proof, ranking, measure, warnings, related data sets and the test-access log."""
    proof = search["proof"]
    metric = METRICS[search["metric"]]
    measure = f"{metric.title} ({metric.meaning})"
    if measure_of_search(search).better == "lower":
        measure = f"−{metric.title} ({metric.meaning}; lower is better)"
    if search["forgetting_weight"]:
        measure += f" − {search['forgetting_weight']:g} × forgetting"
    lines = [
        f"holdout {proof['level']!r}: {proof['statement']}",
        _comparison(proof),
        SEALED,
        scenario_line(search),
        _ranking_line(search["ranking"]),
        f"evaluation and tuning: {measure}, in {measure_of_search(search).unit}; drop: tuning − evaluation, two streams of "
        "which one may be the harder",
    ]
    if search["conventional"]:
        lines.append(_gap_line(search))
    lines += _warnings(search)
    for pair in proof["allowed_related_pairs"]:
        lines.append(f"related data sets on both sides: {' / '.join(pair)}")
    return lines + access_lines(search["test_access_log"])


def _comparison(proof: dict[str, Any]) -> str:
    if proof["level"] == "none":
        return "tuning and evaluation share their tasks: nothing was held out but the dev split"
    percent = 100 * proof["near_duplicate_rate"]
    return (
        f"compared {proof['tuning_examples']} tuning texts with {proof['evaluation_examples']} evaluation texts: "
        f"none in common, {proof['near_duplicates']} near-duplicates ({percent:.2f} %)"
    )


def scenario_line(search: dict[str, Any]) -> str:
    """What is the same for all methods and in both phases: tasks, their size, and what is kept of them."""
    examples = [task[0] for task in search["scenario"]]
    sizes = str(examples[0])
    if examples[0] != examples[-1]:
        sizes += f" to {examples[-1]}"
    line = f"scenario: {len(examples)} tasks of {sizes} train examples; "
    memory = search["memory"]
    if not memory:
        return line + "no method keeps examples of earlier tasks"
    share = next(iter(memory.values()))
    return line + f"memory: {100 * share:g} % of each earlier task's examples ({', '.join(memory)})"


def _ranking_line(ranking: dict[str, Any]) -> str:
    evaluation = " > ".join(ranking["evaluation"])
    tuning = "the same"
    if ranking["tuning"] != ranking["evaluation"]:
        tuning = f"was {' > '.join(ranking['tuning'])}"
    tau = "–"
    if ranking["kendall_tau"] is not None:
        tau = f"{ranking['kendall_tau']:.2f}"
    count = len(ranking["evaluation"])
    return f"ranking in the evaluation: {evaluation}; in tuning {tuning}; Kendall tau {tau} over {count} methods"


def _gap_line(search: dict[str, Any]) -> str:
    """What the gap is, and how far the usual protocol ranks the methods alike."""
    line = (
        f"gap: evaluation of {search['conventional']!r}, tuned on the evaluation streams themselves, − this evaluation"
    )
    tau = search["ranking"]["kendall_tau_conventional"]
    if tau is not None:
        line += f"; Kendall tau between the two {tau:.2f}"
    return line


def _warnings(search: dict[str, Any]) -> list[str]:
    """What makes the comparison less equal, or less held out, than it looks."""
    lines = []
    failed = 0
    for label, method in search["methods"].items():
        count = sum(method["trials"].values())
        failed += method["trials"].get("failed", 0)
        if count < search["trials_each"]:
            lines.append(f"{label}: its space held {count} of the {search['trials_each']} trials")
        if method["evaluation_score"] is None:
            lines.append(f"{label}: {runs_of(method)} of the evaluation finished, so it has no score and no rank")
    for label in search["chosen"]["missing"]:
        lines.append(f"{label}: no trial finished, so it was not evaluated")
    if search["select"] == "first-task":
        lines.append(
            "tuned on the first task alone: the tuning score is that of one task, so the drop compares unlike things"
        )
    if search["choices"] > 1:
        lines.append(
            f"values were chosen {search['choices']} times under this name: an evaluation may have been seen before"
        )
    if failed:
        lines.append("trials that failed run again with --retry-failed")
    return lines


def access_lines(log: list[dict[str, Any]]) -> list[str]:
    """Who read a test split, a line for each reader and reason."""
    if not log:
        return ["no test split was read"]
    lines = ["test splits were read by (the test-access log):"]
    for entry in log:
        first = datetime.fromtimestamp(entry["first"] / 1000).strftime("%Y-%m-%d %H:%M:%S")
        names = f"{len(entry['datasets'])} data sets"
        # A few fit on the line; the JSON object has them all.
        if len(entry["datasets"]) < 4:
            names = ", ".join(entry["datasets"])
        lines.append(f"  {first} {entry['by']}: {names} ({entry['why']})")
    return lines
