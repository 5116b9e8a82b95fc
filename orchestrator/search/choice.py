"""TODO orchestrator.search.choice"""

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
from orchestrator.search.trials import search_key
from orchestrator.store.events import Event, SearchChosen
from orchestrator.store.journal import Journal, Tail


def record(search: Search, event: Event) -> None:
    """Note a fact in the search's journal, once for all that it says."""
    if not any(known.says_the_same_as(event) for known in Tail(search.folder).new_events()):
        Journal(search.folder, "search").append(event)


def freeze(search: Search, trial_store: TrialStore) -> dict[str, Any]:
    """The chosen values, as the file `chosen.json` that the evaluation takes them from, with a SHA-256 over all of it.

    Raises UserError where a file is there that the search did not write: the evaluation takes no other values.
    """
    best = {c.label: trial_store.best(c.label) for c in search.method_searches}
    methods = {
        c.label: {
            "values": trial.values,
            "trial": trial.number,
            "score": trial_store.ends[trial.key].score,
            "entry": with_values(c.entry, trial.values).model_dump(mode="json"),
        }
        for c in search.method_searches
        if (trial := best[c.label])
    }
    content = {
        "search": search.config.name,
        "definition": search.definition,
        "holdout": search.settings.holdout,
        "select": search.settings.select,
        "trials_sha256": trial_store.fingerprint(),
        "methods": methods,
        "missing": [label for label, trial in best.items() if trial is None],
    }
    chosen = content | {"sha256": content_hash(content)}
    file = search.folder / "chosen.json"
    if file.exists() and _sha256_of(file) not in {chosen["sha256"], *_chosen_before(search)}:
        raise UserError(
            f"{file}: these are not the values that the search chose (their SHA-256 is not in its journal); "
            "the evaluation takes no others. Delete the file to have the chosen ones written again"
        )
    record(search, SearchChosen(sha256=chosen["sha256"]))
    aside = file.with_name(".chosen.json")
    aside.write_text(json.dumps(chosen, indent=1))
    aside.replace(file)
    return chosen


def read_chosen(search: Search) -> dict[str, Any]:
    """The values to evaluate, from the file. Raises UserError where the search's journal does not know them."""
    file = search.folder / "chosen.json"
    if _sha256_of(file) not in _chosen_before(search):
        raise UserError(f"{file}: these are not the values that the search chose; the evaluation takes no others")
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def _chosen_before(search: Search) -> list[str]:
    return [e.sha256 for e in Tail(search.folder).new_events() if isinstance(e, SearchChosen)]


def _sha256_of(file: Path) -> str:
    """The SHA-256 that a choice states, if that is what its content has; else nothing."""
    try:
        content = json.loads(file.read_text())
        said = str(content.pop("sha256"))
    except (OSError, ValueError, KeyError, AttributeError):
        return ""
    return said if said == content_hash(content) else ""


def frozen_config(config: RunConfig, chosen: dict[str, Any]) -> RunConfig:
    """The evaluation phase: the evaluation streams and seeds, every method with its chosen values."""
    entries = [MethodEntry.model_validate(m["entry"]) for m in chosen["methods"].values()]
    return config.model_copy(update={"methods": tuple(entries)})


def evaluation_sequences(search: Search, frozen: RunConfig, chosen: dict[str, Any]) -> list[SequencePlan]:
    root = search_key(frozen.name)
    above = ((root, f"{frozen.name}: search"), (f"{root}/evaluation-{chosen['sha256'][:8]}", "evaluation"))
    return [
        sequence
        for stream in frozen.streams
        for method in frozen.methods
        for seed in frozen.seeds
        for sequence in search.planner.sequences(method, stream, seed, parents=above)
    ]
