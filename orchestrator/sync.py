"""`orchestrator sync`: the copy in MLflow compared with the journals, and mended, without training anything."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.config.experiment import RunConfig
from orchestrator.errors import UserError
from orchestrator.planning.experiment import is_search_folder, open_experiment, search_folder
from orchestrator.redaction import redacted
from orchestrator.retention import noted_trials
from orchestrator.run import exclusive_run, warn_on
from orchestrator.store.journal import Tail
from orchestrator.store.records.search_events import SearchStarted
from orchestrator.tracking import close, sync_of

# What was mended is listed as far as it fits a screen
MOST_LINES = 20


@dataclass(frozen=True)
class Copied:
    """What an experiment, or a search with its trials, has in MLflow: the journals by the ids of their sequences."""

    config: RunConfig
    sequence_ids: tuple[str, ...]
    search: Path | None


def sync_run(run: str, out: str, console: Console) -> dict[str, Any]:
    """Copy to MLflow what is missing there, mend what differs. Gives what was compared, mended and left. Raises UserError."""
    copied = find_copied(run, out)
    kinds = ("search", "experiment") if copied.search else ("experiment",)
    with contextlib.ExitStack() as held:
        for kind in kinds:
            held.enter_context(exclusive_run(copied.config, kind))
        sync = sync_of(copied.config, warn_on(console), copied.search, every_point=True)
        sync.follow(copied.sequence_ids)
        behind = close(sync, copied.config, lambda line: console.print(line, style="dim", highlight=False))
    return {
        "experiment": copied.config.name,
        "out": copied.config.out,
        # a server's address is its page; a database file has none
        "page": redacted(sync.uri) if sync.uri.startswith("http") else None,
        "sequences": len(copied.sequence_ids),
        "in_step": behind is None,
        "behind": behind,
        "compared": sync.compared,
        "mended": sync.mended,
        "differences": sync.differences,
    }


def find_copied(run: str, out: str) -> Copied:
    """What belongs to an experiment or a search, by its name or its folder. Raises UserError where there is none."""
    try:
        experiment = open_experiment(run, out)
    except UserError:
        # a search that has not come to its evaluation has trials, and no experiment yet
        if not is_search_folder(out, run):
            raise
        return Copied(_config_of_search(run, out), _trial_ids(run, out), search_folder(out, run))
    config = experiment.config
    ids = [sequence.id for sequence in experiment.sequences]
    if not is_search_folder(config.out, config.name):
        return Copied(config, tuple(ids), None)
    # the trials first, as in the search itself
    all_ids = dict.fromkeys((*_trial_ids(config.name, config.out), *ids))
    return Copied(config, tuple(all_ids), search_folder(config.out, config.name))


def _trial_ids(name: str, out: str) -> tuple[str, ...]:
    return tuple(sequence.id for sequence in noted_trials(out, name))


def _config_of_search(name: str, out: str) -> RunConfig:
    config = None
    for event in Tail(search_folder(out, name)).new_events():
        if isinstance(event, SearchStarted):
            config = event.config
    if config is None:
        raise UserError(f"search {name!r} in {out!r}: its journal does not say how it was started")
    return RunConfig.model_validate({**config, "out": out})


def print_sync(result: dict[str, Any], console: Console) -> None:
    """Print what was mended, what differs still, and how much was compared."""
    _print_some(result["mended"], "mended", console)
    _print_some(result["differences"], "differs", console)
    compared = result["compared"]
    counts = f"{compared['runs']} runs, {compared['models']} models and {compared['points']:,} points of metrics"
    if result["in_step"]:
        line = f"in step: {counts} of {result['sequences']} sequence(s) are in MLflow as the journals say"
        console.print(line, highlight=False, soft_wrap=True)
    else:
        console.print(result["behind"], style="red", highlight=False, soft_wrap=True)


def _print_some(lines: list[str], word: str, console: Console) -> None:
    for line in lines[:MOST_LINES]:
        console.print(f"{word}: {line}", highlight=False, soft_wrap=True)
    if len(lines) > MOST_LINES:
        console.print(f"{word}: {len(lines) - MOST_LINES} more", highlight=False, soft_wrap=True)
