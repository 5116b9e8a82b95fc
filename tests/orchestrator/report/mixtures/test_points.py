"""Finished runs of mixtures as points."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning.experiment import Experiment
from orchestrator.planning.planner import plan
from orchestrator.report.mixtures.points import mixture_points, share_of_guests
from orchestrator.training.sequence import run_sequence
from tests.conftest import small_config


def test_each_run_is_a_point_by_its_tokens_share_and_loss(tmp_path: Path) -> None:
    def experiment(share: float, scorer: str = "perplexity", **stream: Any) -> Experiment:
        scenario = {"name": "mixture", "share": share, "tasks": ["headlines"]}
        entry = {"first": 2, "max_train": 16, "scorer": scorer, "scenario": scenario, **stream}
        config = small_config(tmp_path, name=f"mix-{share:g}", stream=entry)
        return Experiment(config, tuple(plan(config)))

    experiments = [experiment(0.25), experiment(0.5)]
    (sequence,) = experiments[0].sequences
    assert share_of_guests(sequence) == 0.25
    view = run_sequence(sequence)
    # the second has not run, and is no point
    (point,) = mixture_points(experiments, "reviews", "reviews")
    assert point.ratio == 0.75
    assert point.loss == pytest.approx(math.log(view.matrix()[1, 0]))
    checkpoint = view.by_task[0].checkpoint
    assert checkpoint is not None and point.tokens == checkpoint.usage["tokens"]
    (other,) = mixture_points(experiments, "reviews", "headlines")
    assert (other.ratio, other.tokens) == (0.25, point.tokens)
    assert other.loss == pytest.approx(math.log(view.matrix()[1, 1]))
    assert mixture_points(experiments, "reviews", "nothing") == []
    with pytest.raises(
        ValueError, match="task 'reviews' is scored by exact-match: a law of mixtures is of perplexities"
    ):
        mixture_points([experiment(0.25, "exact-match")], "reviews", "reviews")
    plain = experiment(0.25, scenario=None)
    assert share_of_guests(plain.sequences[0]) is None
    assert mixture_points([plain], "reviews", "reviews") == []
