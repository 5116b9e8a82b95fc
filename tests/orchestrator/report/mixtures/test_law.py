"""The law of mixtures: one that was planted is found again, and its best share is the one of a plain search."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from orchestrator.report.mixtures.law import Law, Point, best_ratio, fit


def planted(tokens: float, ratio: float) -> float:
    """E 1.5, B 0.6, eta 0.4, beta 0.3 (tokens in millions), C 0.2, epsilon 0.1, gamma 0.5."""
    return 1.5 + 0.6 * ratio**0.4 / (tokens / 1e6) ** 0.3 + 0.2 / (ratio + 0.1) ** 0.5


POINTS = [
    Point(tokens, ratio, planted(tokens, ratio)) for tokens in (2e5, 1e6, 5e6) for ratio in (0.1, 0.3, 0.5, 0.7, 0.9)
]


@pytest.fixture(scope="module")
def law() -> Law:
    return fit(POINTS)


def test_a_planted_law_predicts_what_was_never_run(law: Law) -> None:
    for tokens, ratio in ((4e5, 0.2), (3e6, 0.6), (2e7, 0.8)):
        assert float(law.loss(tokens, ratio)) == pytest.approx(planted(tokens, ratio), rel=2e-3)
    assert law.held_out_r2 > 0.99
    assert law.num_points == 15


def test_one_run_that_went_wrong_hardly_counts(law: Law) -> None:
    wrong = [*POINTS[:7], replace(POINTS[7], loss=2 * POINTS[7].loss), *POINTS[8:]]
    found = fit(wrong)
    assert float(found.loss(1e6, 0.3)) == pytest.approx(planted(1e6, 0.3), rel=0.02)
    assert found.held_out_r2 < law.held_out_r2


def test_noise_alone_is_said_to_predict_nothing() -> None:
    rng = np.random.default_rng(0)
    noise = [replace(point, loss=float(2 + 0.1 * rng.standard_normal())) for point in POINTS]
    assert fit(noise).held_out_r2 < 0.3


def test_the_best_share_is_that_of_a_plain_search(law: Law) -> None:
    general = law
    for tokens in (3e5, 3e6):
        shares = [round(0.1 + 0.01 * i, 2) for i in range(81)]
        expected = min(shares, key=lambda share: planted(tokens, share))
        assert best_ratio(law, tokens, (0.1, 0.9)) == pytest.approx(expected, abs=0.02)
        # the rest may not be forgotten: its loss, at the rest's share, stays below that of a half
        most = planted(tokens, 0.5)
        allowed = [share for share in shares if planted(tokens, 1 - share) <= most]
        expected = min(allowed, key=lambda share: planted(tokens, share))
        assert best_ratio(law, tokens, (0.1, 0.9), general, most) == pytest.approx(expected, abs=0.02)
    with pytest.raises(ValueError, match=r"the general loss is above 0\.1 at every share; the lowest is"):
        best_ratio(law, 1e6, (0.1, 0.9), general, 0.1)


@pytest.mark.parametrize("points", [POINTS[:7], POINTS[:5] * 2, [point for point in POINTS if point.ratio < 0.4] * 2])
def test_runs_that_cannot_tell_are_refused(points: list[Point]) -> None:
    with pytest.raises(
        ValueError, match="a law of mixtures takes 8 runs or more, of 3 shares and two numbers of tokens"
    ):
        fit(points)
    assert math.isfinite(points[0].loss)
