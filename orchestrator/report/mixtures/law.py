"""How a corpus's loss falls with the tokens that are trained on and with its share of them (D-CPT law, arXiv 2406.01375).

L(D, r) = E + B r^eta / D^beta + C / (r + epsilon)^gamma, for one size of model: D tokens of the whole mixture, of which the
share r is of the corpus that the loss is of. Losses are in nats a token.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

Array = NDArray[np.float64]

# Fewer say nothing of six numbers
FEWEST_POINTS = 8
FEWEST_RATIOS = 3
FOLDS = 5
# Beyond such a relative error of a loss, a point is an outlier that counts by its distance, not by its square
OUTLIER = 1e-2
RATIOS = np.round(np.arange(0.01, 1.0, 0.01), 2)


@dataclass(frozen=True)
class Point:
    """The loss of a run: `tokens` of the mixture were trained on, the share `ratio` of them of the corpus."""

    tokens: float
    ratio: float
    loss: float


@dataclass(frozen=True)
class Law:
    """A law that was fitted. `held_out_r2` is R^2 of each point's loss as predicted by a law that was fitted without it."""

    floor: float
    b: float
    eta: float
    beta: float
    c: float
    epsilon: float
    gamma: float
    scale: float
    held_out_r2: float
    num_points: int

    def loss(self, tokens: float, ratio: Array | float) -> Array:
        """The predicted loss."""
        parameters = np.array([self.floor, self.b, self.eta, self.beta, self.c, self.epsilon, self.gamma])
        return _predict(np.log(parameters), tokens / self.scale, np.asarray(ratio, dtype=float))


def fit(points: Sequence[Point]) -> Law:
    """The law of some runs. Raises ValueError where they are too few, or too much alike, to tell."""
    ratios = {point.ratio for point in points}
    amounts = {point.tokens for point in points}
    if len(points) < FEWEST_POINTS or len(ratios) < FEWEST_RATIOS or len(amounts) < 2:
        raise ValueError(
            f"a law of mixtures takes {FEWEST_POINTS} runs or more, of {FEWEST_RATIOS} shares and two numbers of tokens; "
            f"found {len(points)} of {len(ratios)} shares and {len(amounts)} numbers"
        )
    # of the order of one, so that every number of the law is
    scale = math.exp(float(np.mean([math.log(point.tokens) for point in points])))
    logs = _fit(points, scale)
    floor, b, eta, beta, c, epsilon, gamma = map(float, np.exp(logs))
    r2 = _held_out_r2(points, scale)
    return Law(floor, b, eta, beta, c, epsilon, gamma, scale, r2, len(points))


def _predict(logs: Array, amounts: Array | float, ratios: Array) -> Array:
    floor, b, eta, beta, c, epsilon, gamma = np.exp(logs)
    return np.asarray(floor + b * ratios**eta / np.asarray(amounts) ** beta + c / (ratios + epsilon) ** gamma)


def _fit(points: Sequence[Point], scale: float) -> Array:
    """The logarithms of the seven numbers: all are above 0. The best of several starts, as the surface has many valleys."""
    amounts = np.array([point.tokens / scale for point in points])
    ratios = np.array([point.ratio for point in points])
    losses = np.log([point.loss for point in points])

    def residuals(logs: Array) -> Array:
        return np.log(_predict(logs, amounts, ratios)) - losses

    lowest = math.exp(losses.min())
    best = None
    for share, beta in itertools.product((0.3, 0.8), (0.1, 0.5)):
        rest = lowest * (1 - share) / 2
        start = np.log([lowest * share, rest, 0.3, beta, rest, 0.1, 0.5])
        found = least_squares(residuals, start, loss="huber", f_scale=OUTLIER, bounds=(-14, 6), max_nfev=100)
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    return np.asarray(best.x)


def _held_out_r2(points: Sequence[Point], scale: float) -> float:
    order = list(range(len(points)))
    # runs lie in the order of a grid, of which no fold should be one row
    random.Random(0).shuffle(order)
    losses = np.array([point.loss for point in points])
    predicted = np.empty(len(points))
    for fold in range(FOLDS):
        held_out = order[fold::FOLDS]
        logs = _fit([points[index] for index in order if index not in held_out], scale)
        for index in held_out:
            point = points[index]
            predicted[index] = _predict(logs, point.tokens / scale, np.array(point.ratio))
    residual = float(((losses - predicted) ** 2).sum())
    return 1 - residual / float(((losses - losses.mean()) ** 2).sum())


def best_ratio(
    law: Law, tokens: float, ratios: tuple[float, float], general: Law | None = None, most: float = math.inf
) -> float:
    """The share of the corpus, within the shares that were tried, at which its loss is lowest after so many tokens.

    `general` is the law of the rest of the mixture, by the rest's share: its loss may be `most`. Raises ValueError where it
    is above that at every share.
    """
    candidates = RATIOS[(ratios[0] - 1e-9 <= RATIOS) & (ratios[1] + 1e-9 >= RATIOS)]
    if general is not None:
        rest = general.loss(tokens, 1 - candidates)
        candidates = candidates[rest <= most]
        if not len(candidates):
            raise ValueError(f"the general loss is above {most:g} at every share; the lowest is {rest.min():.4g}")
    return float(candidates[law.loss(tokens, candidates).argmin()])
