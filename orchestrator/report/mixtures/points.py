"""The runs of experiments whose streams are mixtures, as points of a law."""

from __future__ import annotations

import math
from collections.abc import Iterable

from orchestrator.evaluation.scorers import SCORERS
from orchestrator.planning.experiment import Experiment
from orchestrator.planning.recovery import recovered_view
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.report.mixtures.law import Point
from streams.scenarios.mixture import Mixture
from streams.sources.corpus import CorpusSource


def mixture_points(experiments: Iterable[Experiment], task: str, scored: str) -> list[Point]:
    """A point for each run that has trained a task in a mixture: the loss on the task `scored`, right after that.

    `ratio` is the share of the task's own examples where that task is scored, and of the guests else. Raises ValueError where the
    scores are no perplexities.
    """
    points = []
    for experiment in experiments:
        for sequence in experiment.sequences:
            share = share_of_guests(sequence, task)
            if share is not None and task in sequence.tasks and scored in sequence.tasks:
                points += _points_of(sequence, share, task, scored)
    return points


def share_of_guests(sequence: SequencePlan, task: str) -> float | None:
    """The share of a task's train examples that are guests, or of its bytes where it is a corpus; None where it is unmixed."""
    source = sequence.stream.settings
    if isinstance(source, CorpusSource):
        for corpus in source.tasks:
            if corpus.name == task and corpus.mixture is not None:
                return corpus.mixture.share
        return None
    for scenario in sequence.stream.scenario:
        if isinstance(scenario, Mixture):
            return scenario.share
    return None


def _points_of(sequence: SequencePlan, share: float, task: str, scored: str) -> list[Point]:
    scored_id = sequence.tasks.index(scored)
    scorer = sequence.scorers[scored_id]
    if SCORERS[scorer].unit != SCORERS["perplexity"].unit:
        raise ValueError(
            f"task {scored!r} is scored by {scorer}: a law of mixtures is of perplexities (scorer: perplexity)"
        )
    view = recovered_view(sequence)
    trained = view.by_task.get(sequence.tasks.index(task))
    score = view.scores.get((sequence.tasks.index(task) + 1, scored_id))
    # a run that is not through has none
    if trained is None or trained.checkpoint is None or score is None:
        return []
    ratio = 1 - share if scored == task else share
    return [Point(float(trained.checkpoint.usage["tokens"]), ratio, math.log(score.score))]
