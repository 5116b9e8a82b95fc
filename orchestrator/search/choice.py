"""The choice: each method's best values, frozen in `chosen.json`, which is all that the evaluation takes from the tuning.

The file has a SHA-256 over its content, and the search's journal lists every one that the search ever wrote. A file with
another one was changed by hand, or comes from another search, and is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestrator.config.experiment import RunConfig
from orchestrator.config.method import MethodEntry
from orchestrator.errors import UserError
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.search.definition import Search, content_hash
from orchestrator.search.space import with_values
from orchestrator.search.trial_store import TrialStore
from orchestrator.store.identities import evaluation_run, search_run
from orchestrator.store.integrity import write_whole
from orchestrator.store.journal import Journal, Tail
from orchestrator.store.records.event import Event
from orchestrator.store.records.search_events import SearchChosen, SearchFinished, SearchStarted

CHOSEN = "chosen.json"


def record_once(folder: Path, event: Event) -> None:
    """Record a fact in a search's journal, unless it is the last of its kind there, with all that it says."""
    last = None
    for known in Tail(folder).new_events():
        if type(known) is type(event):
            last = known
        # A search that was started anew, for more trials, has to say again that it ended, though nothing came of it.
        elif isinstance(known, SearchStarted) and isinstance(event, SearchFinished):
            last = None
    # Not any of its kind: what was so, was changed and is so again is news.
    if last is None or not last.says_the_same_as(event):
        Journal(folder, "search").append(event)


def freeze(search: Search, trial_store: TrialStore) -> dict[str, Any]:
    """Write the chosen values as the file `chosen.json`, with a SHA-256 over all of it; gives what it holds.

    Raises UserError where a file is there that the search did not write: the evaluation takes no other values.
    """
    content = _choice(search, trial_store)
    chosen = content | {"sha256": content_hash(content)}
    file = search.folder / CHOSEN
    if file.exists() and stated_sha256(file) not in {chosen["sha256"], *choices_made(search.folder)}:
        raise UserError(
            f"{file}: these are not the values that the search chose (their SHA-256 is not in its journal); "
            "the evaluation takes no others. Delete the file to have the chosen ones written again"
        )
    # The journal first: a process that dies between the two leaves a hash without a file, which locks nothing.
    record_once(search.folder, SearchChosen(sha256=chosen["sha256"]))
    write_whole(file, json.dumps(chosen, indent=1).encode())
    return chosen


def _choice(search: Search, trial_store: TrialStore) -> dict[str, Any]:
    methods = {}
    missing = []
    for method_search in search.method_searches:
        best = trial_store.best(method_search.label)
        if best is None:
            missing.append(method_search.label)
            continue
        methods[method_search.label] = {
            "values": best.values,
            "trial": best.number,
            "score": trial_store.results[best.key].score,
            "entry": with_values(method_search.entry, best.values).model_dump(mode="json"),
        }
    return {
        "search": search.config.name,
        "definition": search.definition,
        "holdout": search.settings.holdout,
        "select": search.settings.select,
        "trials_sha256": trial_store.fingerprint(),
        "methods": methods,
        "missing": missing,
    }


def read_chosen(search: Search) -> dict[str, Any]:
    """The values to evaluate, from the file. Raises UserError where the search's journal does not know them."""
    file = search.folder / CHOSEN
    if stated_sha256(file) not in choices_made(search.folder):
        raise UserError(f"{file}: these are not the values that the search chose; the evaluation takes no others")
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def choices_made(folder: Path) -> list[str]:
    """The SHA-256 of every choice that a search's journal lists, oldest first."""
    hashes = []
    for event in Tail(folder).new_events():
        if isinstance(event, SearchChosen) and event.sha256 not in hashes:
            hashes.append(event.sha256)
    return hashes


def stated_sha256(file: Path) -> str:
    """The SHA-256 that a choice states, if that is what its content has; else nothing."""
    # A file that is no choice at all is refused in the same words as one that was changed.
    try:
        content = json.loads(file.read_text())
        stated = str(content.pop("sha256"))
    except (OSError, ValueError, KeyError, AttributeError):
        return ""
    if stated != content_hash(content):
        return ""
    return stated


def frozen_config(config: RunConfig, chosen: dict[str, Any]) -> RunConfig:
    """The configuration of the evaluation phase: its streams and seeds, every method with its chosen values."""
    entries = []
    for method in chosen["methods"].values():
        entries.append(MethodEntry.model_validate(method["entry"]))
    return config.model_copy(update={"methods": tuple(entries)})


def evaluation_sequences(search: Search, frozen: RunConfig, chosen: dict[str, Any]) -> list[SequencePlan]:
    """The sequences of the evaluation phase, below a run of the search's in MLflow that names the choice."""
    parents = (search_run(frozen.name), evaluation_run(frozen.name, chosen["sha256"]))
    sequences = []
    for stream in frozen.streams:
        for method in frozen.methods:
            for seed in frozen.seeds:
                sequences += search.planner.sequences(method, stream, seed, parents=parents)
    return sequences
