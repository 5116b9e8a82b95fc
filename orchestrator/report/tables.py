"""The results of an experiment as a table on the screen, and what a reader must know beside it."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from methods import run_kind
from orchestrator.evaluation.measure import PERCENT, Measure
from orchestrator.evaluation.metrics import METRICS, Metric
from orchestrator.evaluation.scorers import SCORERS
from orchestrator.report.measures import parts_by_scorer, result_measure
from orchestrator.report.numbers import known_of, mean_and_deviation, mean_usage
from orchestrator.report.probes import print_probes

Result = dict[str, Any]  # of one sequence, see `orchestrator.report.results.sequence_result`

USAGE_HEADINGS = {"tokens": "tokens", "flops": "FLOPs"}

# From the widest table to the narrowest: the first that fits the screen is shown
USAGE_CHOICES = (("tokens", "flops"), ("flops",), ())

SEEN_NOTE = (
    "evaluation.rows is seen: no state is scored on a task before it was trained, so there is no forward transfer (fwt), and "
    "forgetting is measured from the best state since then; `all` computes what is missing"
)
CHOOSING_NOTES = {
    "rank": "model.scoring is rank: an answer is that of its task's own labels which is likeliest as a whole",
    "constrained": "model.scoring is constrained: answers are generated, of tokens that go on with a label of their own task",
}
DEVIATION_LEGEND = "a ± b mean and sample standard deviation (n - 1) over the seeds"
LOWER_LEGEND = "where a lower score is better, a change above 0 is still one for the better, and forgetting is a rise"
TRAIN_LEGEND = "train what training took, also in tokens and FLOPs where there is room (else see summary.csv)"


def print_report(result: dict[str, Any], console: Console) -> None:
    """Print a table for each stream, with mean ± standard deviation where there are several seeds, and the legend.

    A stream whose tasks have several scorers has a table for each of these too, and none over all tasks where the scores
    are in different units: their mean would say nothing.
    """
    columns = _columns([*result["sequences"], *_all_parts(result["sequences"])])
    by_stream: dict[str, list[Result]] = defaultdict(list)
    for sequence in result["sequences"]:
        by_stream[sequence["stream"]].append(sequence)
    for stream, sequences in by_stream.items():
        title = _title(result["experiment"], stream, sequences)
        measure = result_measure(sequences[0])
        if measure is not None:
            together = ", all scorers together" if _by_scorer(sequences) else ""
            console.print(_widest_that_fits(title + together + _in_unit(measure), sequences, columns, console))
        for scorer, parts in _by_scorer(sequences).items():
            of_scorer = f"{title}, of these {', '.join(parts[0]['tasks'])} by {scorer}"
            measure = SCORERS[scorer].measure
            console.print(_widest_that_fits(of_scorer + _in_unit(measure, scorer), parts, columns, console))
        print_probes(sequences, console)
        _print_reference_runs(sequences, console)
        _print_notes(sequences, console)
        _print_missing_runs(sequences, console)
    if result.get("damaged_lines"):
        console.print(result["damaged_lines"], style="yellow", highlight=False, soft_wrap=True)
    legend = _legend(columns, result["sequences"], _has_deviations(by_stream.values()))
    console.print(legend, style="dim", highlight=False)


def _by_scorer(sequences: Sequence[Result]) -> dict[str, list[Result]]:
    """The results over the tasks of each scorer; none where the stream has one."""
    parts: dict[str, list[Result]] = defaultdict(list)
    for part in _all_parts(sequences):
        parts[part["scorers"][0]].append(part)
    return parts


def _all_parts(sequences: Sequence[Result]) -> list[Result]:
    parts: list[Result] = []
    for sequence in sequences:
        parts += parts_by_scorer(sequence)
    return parts


def _in_unit(measure: Measure, scorer: str = "") -> str:
    """What a title says of the unit: nothing of the usual one, which the legend names, nor of one that the scorer names."""
    if measure == PERCENT:
        return ""
    unit = f", in {measure.unit}" if measure.unit != scorer else ""
    return f"{unit}, where {measure.better} is better"


def _columns(sequences: Sequence[Result]) -> list[Metric]:
    """The metrics that the table shows; AA among options only where a model answers among options."""
    columns = []
    for metric in METRICS.values():
        is_known = bool(known_of(_values(sequences, metric.name)))
        if metric.in_table and (is_known or not metric.is_optional):
            columns.append(metric)
    return columns


def _title(experiment: str, stream: str, sequences: Sequence[Result]) -> str:
    num_tasks = len(sequences[0]["tasks"])
    seeds = sorted(set(_values(sequences, "seed")))
    return f"{experiment}: {stream}, {num_tasks} tasks, seed {', '.join(map(str, seeds))}"


def _widest_that_fits(title: str, sequences: Sequence[Result], columns: Sequence[Metric], console: Console) -> Table:
    # measured without the screen's own limit, to which any table would be squeezed
    unlimited = console.options.update(width=1000)
    for units in USAGE_CHOICES:
        table = _table(title, sequences, columns, units)
        if console.measure(table, options=unlimited).maximum <= console.width:
            break
    return table


def _table(title: str, sequences: Sequence[Result], columns: Sequence[Metric], units: Sequence[str]) -> Table:
    """A line for each method, reference runs last. Of what training took, the time and the given units."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", no_wrap=True)
    measure = result_measure(sequences[0])
    assert measure is not None
    for metric in columns:
        table.add_column(metric.heading(measure), justify="right")
    table.add_column("train", justify="right")
    for unit in units:
        table.add_column(USAGE_HEADINGS[unit], justify="right")
    # a column that says "finished" in every line says nothing
    all_finished = set(_values(sequences, "status")) == {"finished"}
    if not all_finished:
        table.add_column("status")
    methods, reference_runs = _by_method(sequences)
    for results in methods:
        table.add_row(*_cells(results, columns, units, measure, with_status=not all_finished))
    table.add_section()
    for results in reference_runs:
        table.add_row(*_cells(results, columns, units, measure, with_status=not all_finished))
    return table


def _by_method(sequences: Sequence[Result]) -> tuple[list[list[Result]], list[list[Result]]]:
    """The results of each method over its seeds, in the order of the configuration; those of reference runs apart."""
    methods: dict[str, list[Result]] = defaultdict(list)
    reference_runs: dict[str, list[Result]] = defaultdict(list)
    for sequence in sequences:
        if sequence["reference"]:
            reference_runs[sequence["method"]].append(sequence)
        else:
            methods[sequence["method"]].append(sequence)
    return list(methods.values()), list(reference_runs.values())


def _cells(
    results: Sequence[Result], columns: Sequence[Metric], units: Sequence[str], measure: Measure, with_status: bool
) -> list[str]:
    """The line of one method, from its results over the seeds."""
    cells = [_name(results)]
    for metric in columns:
        cells.append(mean_and_deviation(_values(results, metric.name), measure.digits))
    seconds = sum(_values(results, "seconds")) / len(results)
    cells.append(f"{seconds:.1f} s")
    for unit in units:
        cells.append(mean_usage(_values(results, unit), unit))
    if with_status:
        cells.append(", ".join(dict.fromkeys(_values(results, "status"))))
    return cells


def _name(results: Sequence[Result]) -> str:
    """The method's name; where not all of its runs have finished, with their number, since all that follows are means."""
    finished = _values(results, "status").count("finished")
    if finished == len(results):
        return str(results[0]["method"])
    return f"{results[0]['method']} ({finished} of {len(results)} runs)"


def _print_missing_runs(sequences: Sequence[Result], console: Console) -> None:
    """A line on each method whose means are over some of its runs alone."""
    for results in itertools.chain(*_by_method(sequences)):
        finished = _values(results, "status").count("finished")
        if 0 < finished < len(results):
            line = (
                f"{results[0]['method']}: {finished} of {len(results)} runs finished; means over these are not to be "
                "compared with other methods'"
            )
            console.print(line, style="yellow", highlight=False)


def _values(results: Sequence[Result], name: str) -> list[Any]:
    return [result.get(name) for result in results]


def _print_reference_runs(sequences: Sequence[Result], console: Console) -> None:
    """A line on what each reference run is."""
    # once for each method: every seed has the same kind of run
    explained = set()
    for sequence in sequences:
        sentence = run_kind(sequence["reference"]).sentence
        if sentence and sequence["method"] not in explained:
            explained.add(sequence["method"])
            console.print(f"{sequence['method']}: {sentence}", style="dim", highlight=False)


def _print_notes(sequences: Sequence[Result], console: Console) -> None:
    """Scores that were not asked for, rows that were dropped from the data, and why sequences failed."""
    if sequences[0].get("scoring") in CHOOSING_NOTES:
        console.print(CHOOSING_NOTES[sequences[0]["scoring"]], style="dim", highlight=False)
    # a store may have all scores nevertheless, from an earlier run
    if any(sequence.get("rows") == "seen" and sequence["fwt"] is None for sequence in sequences):
        console.print(SEEN_NOTE, style="dim", highlight=False)
    # all sequences of a stream have its data, so the first one tells of all
    for task, counts in sequences[0]["dropped_rows"].items():
        parts = []
        for split, count in counts.items():
            if count:
                parts.append(f"{count} {split} rows")
        line = f"{task}: {', '.join(parts)} with a label outside the label set were left out"
        console.print(line, style="yellow")
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


def _has_deviations(streams: Iterable[Sequence[Result]]) -> bool:
    """Whether a table shows a ±: a method has several seeds on one stream."""
    for sequences in streams:
        for results in itertools.chain(*_by_method(sequences)):
            if len(results) > 1:
                return True
    return False


def _legend(columns: Sequence[Metric], sequences: Sequence[Result], has_deviations: bool) -> str:
    """What each column says, and from which reference runs intransigence is measured."""
    measured_from = _values(sequences, "measured_from")
    measures = set(map(result_measure, sequences))
    for result in _all_parts(sequences):
        measures.add(result_measure(result))
    beginning = ""
    if PERCENT in measures:
        beginning = "In %: "
        if len(measures) > 1:
            beginning = "In % where a title says nothing else: "
    parts = []
    for metric in columns:
        part = f"{metric.title} {metric.meaning}"
        if metric.name == "intransigence":
            part += f" ({', '.join(sorted(set(filter(None, measured_from))))})"
        parts.append(part)
    if has_deviations:
        parts.append(DEVIATION_LEGEND)
    if any(measure and measure.better == "lower" for measure in measures):
        parts.append(LOWER_LEGEND)
    return beginning + " · ".join([*parts, TRAIN_LEGEND])
