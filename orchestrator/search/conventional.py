"""The usual protocol, for contrast: a search of the same methods that was tuned on the very streams that it is evaluated on.

It is a search like any other, with `holdout: none` and the evaluation's streams under `search.streams`. What it scores above
the held-out search is the gap of arXiv 2403.09066. It is found by what was asked for, not by its name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.planning.experiment import Experiment, open_experiment
from orchestrator.store.journal import Tail
from orchestrator.store.records.search_events import SearchStarted

# What may differ between the two: where they are kept and run, and what they are tuned on.
_MAY_DIFFER = {"name", "out", "tracking", "scaling", "search"}
_MAY_DIFFER_IN_SEARCH = {"streams", "holdout", "allowed_related_pairs", "max_concurrent"}
# Limits of a split that only one of the two phases reads.
_SPLIT_LIMITS = {"max_dev", "max_test"}


def conventional_search(experiment: Experiment) -> Experiment | None:
    """The evaluation of the conventional search that belongs to a held-out one and lies beside it; None: there is none."""
    ours = _asked_for(experiment.folder / "search")
    if ours is None:
        return None
    for folder in sorted(experiment.folder.parent.glob("*/search")):
        theirs = _asked_for(folder)
        if theirs is None or not is_conventional_form(theirs, ours):
            continue
        try:
            return open_experiment(folder.parent.name, experiment.config.out)
        except UserError:
            # It was begun, and has not come to its evaluation.
            continue
    return None


def _asked_for(folder: Path) -> dict[str, Any] | None:
    """The configuration that a search was last given, as plain values."""
    config = None
    for event in Tail(folder).new_events():
        if isinstance(event, SearchStarted):
            config = event.config
    return config


def is_conventional_form(theirs: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Whether one configuration is another that holds out, but for being tuned on its evaluation streams."""
    if theirs["search"]["holdout"] != "none" or ours["search"]["holdout"] == "none":
        return False
    if _without(theirs, _MAY_DIFFER) != _without(ours, _MAY_DIFFER):
        return False
    if _without(theirs["search"], _MAY_DIFFER_IN_SEARCH) != _without(ours["search"], _MAY_DIFFER_IN_SEARCH):
        return False
    tuned_on = [_without(stream, _SPLIT_LIMITS) for stream in theirs["search"]["streams"]]
    evaluated_on = [_without(stream, _SPLIT_LIMITS) for stream in theirs["streams"]]
    return tuned_on == evaluated_on


def _without(values: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}
