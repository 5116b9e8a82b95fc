"""Tables beside the main one: what happened amid training, what a run learns beside its experts, and FUAR."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from orchestrator.evaluation.curves.knowledge import NO_GAIN
from orchestrator.evaluation.curves.lifelong import LIFELONG
from orchestrator.evaluation.curves.stability import STABILITY, CurveMetric
from orchestrator.report.measures import result_measure
from orchestrator.report.numbers import known_of, mean_and_deviation

Result = dict[str, Any]  # of one sequence, see `orchestrator.report.results.sequence_result`

NO_POINTS = (
    "no points of some tasks, so no metrics of what happened amid training: their states were found, trained without "
    "evaluation.during as it is now; another --out trains them anew"
)


def print_curves(sequences: Sequence[Result], console: Console) -> None:
    """Print a table of each kind for each stream that has any of its metrics, each with its legend."""
    by_stream: dict[str, list[Result]] = defaultdict(list)
    for sequence in sequences:
        # what a reference run lacks is no gap, and it is its own expert
        if not sequence["reference"]:
            by_stream[sequence["stream"]].append(sequence)
    for stream, results in by_stream.items():
        _print_stability(stream, results, console)
        _print_lifelong(stream, results, console)
        _print_fuar(stream, results, console)


def _print_stability(stream: str, results: Sequence[Result], console: Console) -> None:
    with_points = _those_with("points", results)
    if not with_points:
        return
    window = with_points[0]["window"]
    metrics = []
    for metric in STABILITY.values():
        title = f"{metric.title}({window})" if metric.change else metric.title
        metrics.append(replace(metric, title=title))
    measure = result_measure(with_points[0])
    digits = 1 if measure is None else measure.digits
    table = _table(f"{stream}: amid training", metrics)
    table.add_column("looks", justify="right")
    rows = []
    for name, of_method in _by_method(with_points).items():
        seconds = sum(_values(of_method, "seconds_of_looks")) / len(of_method)
        rows.append([name, *_cells(metrics, of_method, digits), f"{seconds:.1f} s"])
    _print(table, rows, metrics, console, "looks the time that scoring amid training took, no part of train")
    for name, of_method in _by_method(with_points).items():
        if any(map(_lacks_points, of_method)):
            console.print(f"{name}: {NO_POINTS}", style="yellow", highlight=False)


def _lacks_points(result: Result) -> bool:
    """Whether a finished run has no points of some task. One that makes no steps has none to look after."""
    with_points = {point[0] for point in result["points"]}
    return result["status"] == "finished" and bool(result["steps"]) and len(with_points) < len(result["tasks"])


def _print_lifelong(stream: str, results: Sequence[Result], console: Console) -> None:
    beside = _those_with("lifelong_beside", results)
    metrics = []
    for metric in LIFELONG.values():
        # those of learning curves need points
        if known_of(_values(beside, metric.name)):
            metrics.append(metric)
    if not metrics:
        return
    experts = ", ".join(dict.fromkeys(_values(beside, "lifelong_beside")))
    table = _table(f"{stream}: beside {experts}", metrics)
    rows = []
    for name, of_method in _by_method(beside).items():
        rows.append([name, *_cells(metrics, of_method, digits=2)])
    _print(
        table, rows, metrics, console, "PM is in the scores' unit, FT and BT are from -1 to 1, the others are ratios"
    )


def _print_fuar(stream: str, results: Sequence[Result], console: Console) -> None:
    for name, of_method in _by_method(_those_with("fuar", results)).items():
        numbers: list[float | None] = []
        without_gain = 0
        for value in _values(of_method, "fuar"):
            if value == NO_GAIN:
                without_gain += 1
            else:
                numbers.append(value)
        words = []
        if numbers:
            words.append(mean_and_deviation(numbers, digits=2))
        if without_gain:
            words.append(f"{NO_GAIN} in {without_gain} of {len(of_method)} runs")
        line = f"{stream}: FUAR ↓ of {name}: {', '.join(words)} (forgotten over updated and acquired; 0 is best)"
        console.print(line, highlight=False)


def _those_with(entry: str, results: Iterable[Result]) -> list[Result]:
    """The results that say something of that name."""
    found = []
    for result in results:
        if entry in result:
            found.append(result)
    return found


def _values(results: Iterable[Result], name: str) -> list[Any]:
    return list(map(itemgetter(name), results))


def _table(title: str, metrics: Iterable[CurveMetric]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for metric in metrics:
        table.add_column(metric.heading, justify="right")
    return table


def _by_method(results: Sequence[Result]) -> Mapping[str, list[Result]]:
    by_method: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_method[result["method"]].append(result)
    return by_method


def _cells(metrics: Iterable[CurveMetric], results: Sequence[Result], digits: int) -> list[str]:
    cells = []
    for metric in metrics:
        cells.append(mean_and_deviation(_values(results, metric.name), digits))
    return cells


def _print(
    table: Table, rows: Sequence[Sequence[str]], metrics: Iterable[CurveMetric], console: Console, last: str
) -> None:
    for row in rows:
        table.add_row(*row)
    console.print(table)
    parts = []
    for metric in metrics:
        parts.append(f"{metric.title} {metric.meaning}")
    console.print(" · ".join([*parts, last]), style="dim", highlight=False)
