"""What makes a comparison of methods unfair before it begins: rates at which one learns nothing, memories of unequal size."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.config.method import MethodEntry
from orchestrator.config.search import Dimension
from orchestrator.config.training import TrainingConfig
from orchestrator.errors import UserError

# Where a range of rates is looked at: evenly over all of it
_POINTS = 11


def doubt_about_rate(method: MethodEntry, training: TrainingConfig, searched: Dimension | None = None) -> str:
    """A line where the rate, or more than half of those that are searched, lies outside what the tuning method declares.

    Empty otherwise. A rate that suits whole weights may leave a subspace or a soft prompt as it was, and nothing else tells.
    """
    card = method.spec.tuning_type.card
    if not method.spec.trains_by_gradient or "lr" not in card.training_space:
        return ""
    low, high = Dimension.model_validate(card.training_space["lr"]).bounds
    rates = [training.resolved_lr]
    if searched is not None:
        rates = _rates(searched)
    outside = [rate for rate in rates if not low <= rate <= high]
    # of a search a few may well lie outside: it will find the others
    if 2 * len(outside) <= len(rates):
        return ""
    found = "most rates of the search lie"
    if searched is None:
        found = f"training.lr {outside[0]:g} lies"
    return (
        f"{method.label}: {found} outside the rates of {method.tuning.name!r}, {low:g} to {high:g}, so it may learn nothing; "
        f"its default is {card.default_lr:g}"
    )


def _rates(searched: Dimension) -> list[float]:
    """The listed rates, or points of a range."""
    if searched.values is not None:
        return [float(rate) for rate in searched.values if rate is not None]
    rates = []
    for point in range(_POINTS):
        rates.append(float(searched.value_at(point / (_POINTS - 1))))
    return rates


def memory_shares(methods: Iterable[MethodEntry]) -> dict[str, float]:
    """By label the share of each earlier task's examples that a method keeps, for those that keep any.

    Raises UserError where two keep unequal shares: that would compare memories, not methods.
    """
    shares: dict[str, float] = {}
    for method in methods:
        share = method.spec.kept_share
        if not share:
            continue
        for other, other_share in shares.items():
            if share != other_share:
                raise UserError(
                    f"methods: not the same memory: {other!r} keeps {100 * other_share:g} % of each earlier task's examples, "
                    f"{method.label!r} {100 * share:g} %; set the same share for both"
                )
        shares[method.label] = share
    return shares
