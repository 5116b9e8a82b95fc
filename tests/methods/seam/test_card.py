"""The card: what a search tries of which kind, and needs that every reader of the card knows."""

from __future__ import annotations

import dataclasses
import math

import pytest

from methods import Card
from methods.seam.card import ADAPTER_RATES, NEEDS, PROMPT_RATES, WEIGHT_RATES, log_range


def test_a_need_that_is_misspelt_is_refused() -> None:
    assert Card(needs=NEEDS).needs == ("boundaries", "old data", "task labels")
    with pytest.raises(ValueError, match="needs: 'old date' is none of boundaries, old data, task labels"):
        Card(needs=("boundaries", "old date"))


def test_a_setting_is_tried_only_for_the_kinds_that_have_it() -> None:
    card = Card(
        space={"weight": [0.1], "scale": [0.3, 1.0], "density": [0.2]},
        space_only_with={"scale": {"rule": ("ties", "dare")}, "density": {"rule": ("ties",), "trim": (True,)}},
    )
    assert card.space_of({"rule": "average", "trim": True}) == {"weight": [0.1]}
    assert card.space_of({"rule": "dare", "trim": True}) == {"weight": [0.1], "scale": [0.3, 1.0]}
    assert list(card.space_of({"rule": "ties", "trim": True})) == ["weight", "scale", "density"]
    assert list(card.space_of({"rule": "ties", "trim": False})) == ["weight", "scale"], "all that is asked must hold"


def test_a_range_of_rates_is_even_in_the_logarithm() -> None:
    assert log_range(1e-5, 1e-3) == {"low": 1e-5, "high": 1e-3, "log": True}
    for rates in (WEIGHT_RATES, ADAPTER_RATES, PROMPT_RATES):
        assert 1 < math.log10(rates["high"] / rates["low"]) < 3  # type: ignore[call-overload]


def test_a_card_that_says_nothing_promises_nothing() -> None:
    """No reason against any combination, no strength at which the method is nothing, and a search over the rate alone."""
    card = Card()
    assert (card.no_output_units, card.per_task_weights, card.no_gradients, card.kept_share) == ("", "", "", "")
    assert card.strength_zero is None
    assert card.version == 1
    assert card.space_of({}) == {}
    assert card.training_space == {"lr": WEIGHT_RATES}
    assert Card().training_space is not card.training_space
    with pytest.raises(dataclasses.FrozenInstanceError):
        card.version = 2  # type: ignore[misc]


def test_its_fields_are_given_by_name() -> None:
    """There are twenty: nobody would read a list of them right."""
    with pytest.raises(TypeError):
        Card("summary")  # type: ignore[misc]
