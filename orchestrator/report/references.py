"""The reference run beside which the sequences of an experiment are read, and what they lack to it: intransigence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from methods import run_kind
from methods.reference_runs import REFERENCE_RUNS, Expert
from orchestrator.evaluation import metrics
from orchestrator.evaluation.curves.lifelong import LIFELONG, lifelong
from orchestrator.report.curves.results import points_in
from orchestrator.report.measures import result_measure
from orchestrator.report.numbers import plain_number
from orchestrator.store.events import Measured, ReferenceScored
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.store.view import read_view


def _measuring_runs() -> list[str]:
    """The names of the reference runs that intransigence is measured from, the one to be asked first at the beginning."""
    ranks = {}
    for name, kind in REFERENCE_RUNS.items():
        if kind.intransigence_rank is not None:
            ranks[name] = kind.intransigence_rank
    return sorted(ranks, key=ranks.__getitem__)


def add_intransigence(sequences: Sequence[dict[str, Any]]) -> None:
    """Give each sequence of results its intransigence, and under `measured_from` the reference run's name.

    Both are None where there is no reference run, or where it or the sequence has not finished.
    """
    for sequence in sequences:
        sequence["measured_from"] = None
        reference = reference_of(sequence, sequences, _measuring_runs())
        if reference is None or sequence["status"] != "finished" or reference["status"] != "finished":
            continue
        sequence["measured_from"] = reference["method"]
        reference_T = np.array(reference_scores(reference))
        _add_to(sequence, metrics.as_matrix(sequence["accuracy_matrix"]), reference_T)


def _add_to(sequence: dict[str, Any], matrix: metrics.Matrix, reference_T: metrics.Matrix) -> None:
    """Give a sequence its intransigence, over all tasks and over those of each scorer."""
    parts: list[tuple[dict[str, Any], list[int] | None]] = [(sequence, None)]
    for part in (sequence.get("by_scorer") or {}).values():
        parts.append((part, part["task_ids"]))
    for part, tasks in parts:
        measure = result_measure(part)
        values = metrics.summary(matrix, sequence["test_sizes"], reference_T=reference_T, measure=measure, tasks=tasks)
        part["intransigence"] = plain_number(values["intransigence"])


def reference_of(
    sequence: dict[str, Any], sequences: Sequence[dict[str, Any]], kinds: Sequence[str]
) -> dict[str, Any] | None:
    """The reference run of a sequence's stream and seed: of the first kind that there is, of its own tuning method first."""
    if sequence["reference"]:
        return None
    for kind in kinds:
        found = []
        for other in sequences:
            if (other["reference"], other["stream"], other["seed"]) == (kind, sequence["stream"], sequence["seed"]):
                found.append(other)
        for other in found:
            if other["tuning"] == sequence["tuning"]:
                return other
        if found:
            return found[0]
    return None


def reference_scores(reference: dict[str, Any]) -> list[float]:
    """A reference run's score on each task: of joint training after all tasks, of an expert after its own."""
    matrix = metrics.as_matrix(reference["accuracy_matrix"])
    scores = matrix[-1]
    if run_kind(reference["reference"]).one_sequence_per_task:
        scores = np.diagonal(matrix[1:])
    return [float(score) for score in scores]


def add_lifelong(sequences: Sequence[dict[str, Any]]) -> None:
    """Give each sequence that has finished its lifelong metrics, and under `lifelong_beside` the name of the runs beside it.

    Where no experts have finished, it gets neither.
    """
    for sequence in sequences:
        expert = reference_of(sequence, sequences, (Expert.name,))
        measure = result_measure(sequence)
        # of scores in different units there is no mean
        if expert is None or measure is None or {sequence["status"], expert["status"]} != {"finished"}:
            continue
        sequence["lifelong_beside"] = expert["method"]
        matrix = metrics.as_matrix(sequence["accuracy_matrix"])
        values = lifelong(matrix, points_in(sequence), points_in(expert), measure.better)
        for name in LIFELONG:
            sequence[name] = plain_number(values[name])


def record_references(out: str, sequences: Sequence[dict[str, Any]]) -> None:
    """Note in each sequence's journal what other sequences have to do with it: the copy in MLflow reads one at a time.

    These are the scores of its reference run, and the metrics that are computed beside its expert.
    """
    for sequence in sequences:
        _record_measured(out, sequence)
        if sequence["measured_from"] is None:
            continue
        reference = reference_of(sequence, sequences, _measuring_runs())
        assert reference is not None
        event = ReferenceScored(reference=reference["method"], scores=reference_scores(reference))
        known = read_view(out, sequence["id"]).reference
        if known is None or not known.says_the_same_as(event):
            Journal(journal_folder(out, sequence["id"]), "report").append(event)


def _record_measured(out: str, sequence: dict[str, Any]) -> None:
    values = {}
    for name in (*LIFELONG, "fuar"):
        # what is not known is no metric, and where nothing was gained FUAR is a word
        if isinstance(sequence.get(name), float):
            values[name] = sequence[name]
    event = Measured(expert=sequence.get("lifelong_beside"), values=values)
    known = read_view(out, sequence["id"]).measured if values else event
    if known is None or not known.says_the_same_as(event):
        Journal(journal_folder(out, sequence["id"]), "report").append(event)
