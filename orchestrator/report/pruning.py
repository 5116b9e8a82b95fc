"""`orchestrator prune`: which states would go, how large they are, and their removal."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from orchestrator.config.running import Keep
from orchestrator.errors import UserError
from orchestrator.planning.experiment import open_experiment
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.retention import Group, Pruning, carry_out, keep_of, other_groups, plan_pruning, planned_groups
from orchestrator.storage.places import folder_at
from orchestrator.store.checkpoints import Store
from orchestrator.store.states.in_task import InTaskStates


def prune(run: str, out: str, keep: Keep | None = None, dry_run: bool = False) -> dict[str, Any]:
    """Prune the states of an experiment, a search or one sequence, or only say what would go. Raises UserError.

    `keep` instead of what the configuration says; where that is "all", the last state of each sequence stays.
    """
    folder, own, others = _find(run, out, keep)
    store = Store(folder.parent.parent)
    with contextlib.ExitStack() as locks:
        if not dry_run:
            lock_experiment(folder, store, locks, ", which prunes by itself as `checkpoints.keep` says")
        running = _running(own, store, locks)
        own = [_without(group, running) for group in own]
        # what is being trained needs all that it has, whatever its plan says
        others.append((folder.name, Group("all", running)))
        pruning = plan_pruning(store, own, [*others, *other_groups(str(store.root), folder.name)])
        rows = _rows(own, pruning, store)
        freed = pruning.net_bytes
        if not dry_run:
            freed = carry_out(pruning, store)
            _remove_states_inside(own, store)
    return {
        "run": run,
        "experiment": folder.name,
        "out": str(store.root),
        "keep": own[0].keep,
        "dry_run": dry_run,
        "states": len(pruning.bytes_to_free),
        "bytes": freed,
        "sequences": rows,
    }


def _keep(folder: Path, keep: Keep | None) -> Keep:
    said = keep or keep_of(folder)
    # whoever gives the command wants something to go
    return "last" if said == "all" else said


def _find(run: str, out: str, keep: Keep | None) -> tuple[Path, list[Group], list[tuple[str, Group]]]:
    """(the experiment's folder, the groups to prune, groups of the same experiment that stay as they are)."""
    folder = folder_at(out) / "experiments" / run
    # a search that has not come to its evaluation has no plan of one, and yet trials
    if not folder.is_dir():
        found = _find_sequence(run, out, keep)
        if found is not None:
            return found
        folder = open_experiment(run, out).folder
    groups = planned_groups(folder, _keep(folder, keep))
    if not groups:
        raise UserError(f"{run}: {str(folder)!r} has no plan of a sequence, so nobody knows its states")
    return folder, groups, []


def _find_sequence(run: str, out: str, keep: Keep | None) -> tuple[Path, list[Group], list[tuple[str, Group]]] | None:
    for folder in sorted((folder_at(out) / "experiments").glob("*")):
        for group in planned_groups(folder):
            named = tuple(sequence for sequence in group.sequences if sequence.id == run)
            if named:
                alone = Group(_keep(folder, keep), named, group.are_over)
                return folder, [alone], [(folder.name, _without(group, named))]
    return None


def lock_experiment(folder: Path, store: Store, locks: contextlib.ExitStack, but: str = "") -> None:
    """Keep other commands from an experiment and from a search of its name. Raises UserError where one runs."""
    for kind in ("experiment", "search"):
        if not locks.enter_context(store.lock(f"{kind}-{folder.name}", timeout=0)):
            raise UserError(f"{kind} {folder.name!r} in {str(store.root)!r} is being run by another process{but}")


def _running(groups: list[Group], store: Store, locks: contextlib.ExitStack) -> tuple[SequencePlan, ...]:
    """The sequences that workers train which have outlived their command; those of the others cannot begin meanwhile."""
    running = []
    for group in groups:
        for sequence in group.sequences:
            if not locks.enter_context(store.lock(f"sequence-{sequence.id}", timeout=0)):
                running.append(sequence)
    return tuple(running)


def _without(group: Group, running: tuple[SequencePlan, ...]) -> Group:
    resting = tuple(sequence for sequence in group.sequences if sequence not in running)
    return replace(group, sequences=resting)


def _remove_states_inside(groups: list[Group], store: Store) -> None:
    """Remove what trials that nobody goes on with have left inside a task."""
    for group in groups:
        for sequence in group.sequences:
            for key in sequence.keys[1:]:
                if group.are_over or store.has_history(key):
                    InTaskStates(store.root, key).remove()


def _rows(groups: list[Group], pruning: Pruning, store: Store) -> list[dict[str, Any]]:
    """A row a sequence. A state that several have counts in the first one's."""
    counted: set[str] = set()
    rows = []
    for group in groups:
        for sequence in group.sequences:
            row: dict[str, Any] = {"sequence": sequence.id, "states": 0, "goes": 0, "bytes": 0, "kept_for": []}
            for key in dict.fromkeys(sequence.keys[1:]):
                if not store.has(key) or key in counted:
                    continue
                counted.add(key)
                row["states"] += 1
                if key in pruning.bytes_to_free:
                    row["goes"] += 1
                    row["bytes"] += pruning.bytes_to_free[key]
                elif key in pruning.kept_for_others:
                    row["kept_for"].append(pruning.kept_for_others[key])
            row["kept_for"] = sorted(set(row["kept_for"]))
            rows.append(row)
    return rows


def print_pruning(result: dict[str, Any], console: Console) -> None:
    """Print a line for each sequence that has states, and a line for all of them."""
    title = f"{result['run']}: keep {result['keep']}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("sequence", overflow="fold")
    for heading in ("states", "go", "stay", "bytes"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("kept for", overflow="fold")
    for row in result["sequences"]:
        if row["states"]:
            stay = row["states"] - row["goes"]
            numbers = (str(row["states"]), str(row["goes"]), str(stay), shown_bytes(row["bytes"]))
            table.add_row(row["sequence"], *numbers, ", ".join(row["kept_for"]))
    console.print(table)
    done = "would go" if result["dry_run"] else "are gone"
    states = "1 state" if result["states"] == 1 else f"{result['states']} states"
    console.print(f"{states}, {shown_bytes(result['bytes'])}, {done}; every score stays", highlight=False)


def shown_bytes(count: int) -> str:
    """A number of bytes in the unit that suits it."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.2f} TB"
