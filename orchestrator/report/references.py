"""The reference run beside which the sequences of an experiment are read, and what they lack to it: intransigence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from methods import run_kind
from methods.reference_runs import REFERENCE_RUNS
from orchestrator.evaluation import metrics
from orchestrator.report.measures import result_measure
from orchestrator.report.numbers import plain_number
from orchestrator.store.events import ReferenceScored
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
        reference = _reference_of(sequence, sequences)
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


def _reference_of(sequence: dict[str, Any], sequences: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The reference run of a sequence's stream and seed: joint before expert, that of its own tuning method before others."""
    if sequence["reference"]:
        return None
    for kind in _measuring_runs():
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


def record_references(out: str, sequences: Sequence[dict[str, Any]]) -> None:
    """Note in each sequence's journal the scores of its reference run: the copy in MLflow reads one journal at a time."""
    for sequence in sequences:
        if sequence["measured_from"] is None:
            continue
        reference = _reference_of(sequence, sequences)
        assert reference is not None
        event = ReferenceScored(reference=reference["method"], scores=reference_scores(reference))
        known = read_view(out, sequence["id"]).reference
        if known is None or not known.says_the_same_as(event):
            Journal(journal_folder(out, sequence["id"]), "report").append(event)
