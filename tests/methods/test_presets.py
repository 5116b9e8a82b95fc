"""The presets: no search turns one of them into another."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from methods import PRESETS, MethodSpec, method_spec

SPECS = {name: method_spec(name) for name in PRESETS}


def parts(spec: MethodSpec) -> list[str | None]:
    """The names of a method's parts, in order, and of its reference run."""
    return [spec.reference, spec.tuning.name, *(part.name for part in spec.plugins)]


def searched(spec: MethodSpec) -> set[str]:
    """What a search tries of a method's parts, as `part.setting`."""
    names = set()
    for part in (spec.tuning, *spec.plugins):
        for setting in part.type.card.space_of(part.settings):
            names.add(f"{part.name}.{setting}")
    return names


def settings(spec: MethodSpec) -> dict[str, Any]:
    """All settings of a method's parts."""
    found = {}
    for part in (spec.tuning, *spec.plugins):
        for setting, value in part.settings.items():
            found[f"{part.name}.{setting}"] = value
    return found


def test_no_choice_of_values_makes_one_preset_another() -> None:
    """Of two presets of the same parts, a setting in which they differ is searched of neither."""
    pairs = 0
    for one, other in itertools.combinations(PRESETS, 2):
        a = SPECS[one]
        b = SPECS[other]
        if parts(a) != parts(b):
            continue
        pairs += 1
        differing = {name for name, value in settings(a).items() if settings(b)[name] != value}
        assert differing - searched(a) - searched(b), f"a search could turn {one} into {other}"
    assert pairs >= 15, "the six rules of merging alone are as many"


@pytest.mark.parametrize("name", PRESETS)
def test_amounts_are_searched_and_never_kinds(name: str) -> None:
    """A rule, an importance, what is there or not: none is a number. Nor is a memory searched, which the scenario fixes."""
    for part in (SPECS[name].tuning, *SPECS[name].plugins):
        card = part.type.card
        for setting, tried in card.space_of(part.settings).items():
            assert setting != card.kept_share
            values = list(tried.values()) if isinstance(tried, dict) else list(tried)
            assert {type(value) for value in values} <= {int, float}, f"{part.name}.{setting}"


@pytest.mark.parametrize(
    ("name", "amounts"),
    [
        ("average", set()),
        ("ema", {"weight"}),
        ("arithmetic", {"scale"}),
        ("ties", {"scale", "density"}),
        ("dare", {"scale", "density"}),
        ("opcm", {"alpha"}),
    ],
)
def test_each_merging_rule_has_its_own_amounts(name: str, amounts: set[str]) -> None:
    assert searched(SPECS[name]) == {f"merge.{amount}" for amount in amounts}


def test_what_keeps_examples_says_how_many() -> None:
    """Every part that reads old data names the setting for the share that it keeps."""
    keeping = {name for name, spec in SPECS.items() if spec.kept_share}
    reading = {
        name for name, spec in SPECS.items() if any("old data" in part_type.card.needs for part_type in spec.types)
    }
    assert keeping == reading
    assert SPECS["der++"].kept_share == SPECS["sapt"].kept_share == 0.02
