"""How sure a score is: an interval from resampling the examples of a task. Shapes: N examples, D sums, R resamples."""

from __future__ import annotations

import numpy as np

from orchestrator.evaluation.scorer import Array, Scorer

LEVEL = 0.95
RESAMPLES = 1000
# Fixed, so that the same answers have the same interval
SEED = 0
# About so many drawn examples are in memory at once
MOST_DRAWN = 1_000_000

Interval = tuple[float, float]


def bootstrap_interval(scorer: Scorer, addends_ND: Array) -> Interval | None:
    """The 95% percentile bootstrap interval of a task's score over its examples; None for fewer than two.

    It says how much the score would move with other examples of the kind. Seeds, which change the model, are not in it.
    """
    num_examples = len(addends_ND)
    if num_examples < 2:
        return None
    # here, not above: it takes half a second, and who only reads scores need not wait
    from scipy.stats import bootstrap

    def scores(indices_RN: Array, axis: int) -> Array:
        # how often each example was drawn is all that sums depend on
        counts_RN = np.stack([np.bincount(drawn, minlength=num_examples) for drawn in np.atleast_2d(indices_RN)])
        return scorer.combine(counts_RN @ addends_ND)

    found = bootstrap(
        (np.arange(num_examples),),
        scores,
        n_resamples=RESAMPLES,
        batch=max(1, MOST_DRAWN // num_examples),
        vectorized=True,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(SEED),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
