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
    assert share_of_guests(sequence, "reviews") == 0.25
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
    assert share_of_guests(plain.sequences[0], "reviews") is None
    assert mixture_points([plain], "reviews", "reviews") == []


def test_a_corpus_has_its_share_of_bytes(tmp_path: Path) -> None:
    (tmp_path / "law.txt").write_text("".join(f"a court of law {i}\n" for i in range(40)))
    (tmp_path / "web.txt").write_text("".join(f"the web {i}\n" for i in range(200)))
    law = {"name": "law", "train": str(tmp_path / "law.txt")}
    law["mixture"] = {"train": str(tmp_path / "web.txt"), "share": 0.25}
    web = {"name": "web", "train": str(tmp_path / "web.txt")}
    stream = {"name": "corpora", "source": "corpus", "tasks": [law, web], "test_fraction": 0.2}
    config = small_config(tmp_path / "out", model="tiny-llama", streams=[stream])
    (sequence,) = plan(config)
    view = run_sequence(sequence)
    (point,) = mixture_points([Experiment(config, (sequence,))], "law", "law")
    assert (point.ratio, point.loss) == (0.75, pytest.approx(math.log(view.matrix()[1, 0])))
    (general,) = mixture_points([Experiment(config, (sequence,))], "law", "web")
    assert (general.ratio, general.loss) == (0.25, pytest.approx(math.log(view.matrix()[1, 1])))
    assert share_of_guests(sequence, "web") is None
