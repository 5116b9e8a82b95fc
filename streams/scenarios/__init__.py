"""Scenarios: what makes a stream of a stream, such as tasks that come again or classes that come in turn. One file a kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streams.names import unknown_name
from streams.scenarios.class_incremental import ClassIncremental
from streams.scenarios.hierarchy import Hierarchy
from streams.scenarios.memories import Memories
from streams.scenarios.mixture import Mixture
from streams.scenarios.orders import Order, Permuted, Repeated, Reversed
from streams.scenarios.recurrence import Recurrence
from streams.scenarios.scenario import Scenario
from streams.scenarios.scole import Scole
from streams.scenarios.si_blurry import SiBlurry
from streams.scenarios.similarity import BySimilarity
from streams.scenarios.subset import Subset
from streams.scenarios.time_slices import TimeSlices

SCENARIOS: dict[str, type[Scenario]] = {
    "class-incremental": ClassIncremental,
    "scole": Scole,
    "recurrence": Recurrence,
    "si-blurry": SiBlurry,
    "hierarchy": Hierarchy,
    "time-slices": TimeSlices,
    "permuted": Permuted,
    "reversed": Reversed,
    "order": Order,
    "repeated": Repeated,
    "similarity": BySimilarity,
    "subset": Subset,
    "mixture": Mixture,
    "memories": Memories,
}


def find_scenarios(value: Any) -> tuple[Scenario, ...]:
    """The scenarios that a stream's entry asks for: one, or a list of those that are applied one after the other.

    Each is a name, or a mapping of a `name` and settings. Raises ValueError for what is neither.
    """
    entries = [value]
    if isinstance(value, list | tuple):
        entries = list(value)
    return tuple(map(_find_scenario, entries))


def _find_scenario(entry: Any) -> Scenario:
    if isinstance(entry, Scenario):
        return entry
    if isinstance(entry, str):
        entry = {"name": entry}
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise ValueError(f"expected a scenario's name, or a mapping with a `name`, found {entry!r}")
    name = entry["name"]
    if name not in SCENARIOS:
        raise ValueError(unknown_name("scenario", name, SCENARIOS))
    return SCENARIOS[name].model_validate(entry)
