"""Which states stay on the disk: `checkpoints.keep`, while an experiment runs and after it.

A score needs no state once it is computed. What else needs one is asked of every sequence that was planned in the output folder:
those that are not through go on from their last state, and an experiment that keeps all keeps what it shares, too.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.config import Keep
from orchestrator.errors import UserError
from orchestrator.evaluation.columns import is_complete, missing_columns
from orchestrator.planning.experiment import PLANS, read_config, read_plans, search_folder
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.storage.lines import appended
from orchestrator.storage.places import folder_at
from orchestrator.store.checkpoints import Store
from orchestrator.store.integrity import is_sound, seal

logger = logging.getLogger(__name__)

# A look asks for each state and score of an experiment, which on shared storage takes a while
SECONDS_BETWEEN_LOOKS = 10.0


@dataclass(frozen=True)
class Group:
    """Sequences that keep alike. `are_over`: none of them goes on, though it may not have come to its end (trials).

    `keeps_first`: sequences that are not planned yet may begin with the same first task, as a search's next trials do.
    """

    keep: Keep
    sequences: tuple[SequencePlan, ...]
    are_over: bool = False
    keeps_first: bool = False


@dataclass(frozen=True)
class Pruning:
    """What would go: keys with their bytes, and those that stay though their own sequences need them no more: why.

    `grows`: states that stay and are a difference from one that goes, with the bytes that they grow by when made whole.
    """

    bytes_to_free: dict[str, int] = field(default_factory=dict)
    kept_for_others: dict[str, str] = field(default_factory=dict)
    grows: dict[str, int] = field(default_factory=dict)

    @property
    def net_bytes(self) -> int:
        """The bytes that would be free."""
        return sum(self.bytes_to_free.values()) - sum(self.grows.values())


def needed_by(sequence: SequencePlan, group: Group, store: Store) -> set[str]:
    """The keys of the states that a sequence still starts from, has to score, or keeps."""
    keys = sequence.keys
    if group.keep == "all":
        return set(keys[1:])
    there = []
    for tasks_seen in range(1, len(keys)):
        if store.has(keys[tasks_seen]):
            there.append(tasks_seen)
    needed = set()
    if group.keeps_first:
        needed.add(keys[1])
    is_through = is_complete(sequence, store)
    if is_through or group.are_over:
        if group.keep == "last" and is_through:
            needed.add(keys[-1])
        elif group.keep == "last" and there:
            needed.add(keys[there[-1]])
        return needed
    # the last state is what it goes on from; the one before stays until that is scored, since it may turn out corrupt
    goes_on_from = True
    for tasks_seen in reversed(there):
        is_scored = not missing_columns(sequence, tasks_seen, store)
        if goes_on_from or not is_scored:
            needed.add(keys[tasks_seen])
        if is_scored:
            goes_on_from = False
    return needed


def plan_pruning(store: Store, groups: Sequence[Group], others: Iterable[tuple[str, Group]] = ()) -> Pruning:
    """What may go of the states of some groups; `others` are groups of the same store, each with its experiment's name."""
    planned: set[str] = set()
    needed: set[str] = set()
    for group in groups:
        for sequence in group.sequences:
            planned.update(sequence.keys[1:])
            needed |= needed_by(sequence, group, store)
    spare = set()
    for key in planned - needed:
        if store.has(key):
            spare.add(key)
    kept_for_others: dict[str, str] = {}
    for name, group in others:
        for sequence in group.sequences:
            # most share nothing, and are not looked at any further
            if spare.isdisjoint(sequence.keys):
                continue
            for key in spare & needed_by(sequence, group, store):
                kept_for_others[key] = name
    bytes_to_free = {}
    for key in sorted(spare - kept_for_others.keys()):
        bytes_to_free[key] = store.prunable_bytes(key)
    grows = {}
    if bytes_to_free:
        # of all that is there: a state that nobody plans any more may still be read by someone
        for key in store.all_keys():
            if key not in bytes_to_free and store.base_of(key) in bytes_to_free:
                grows[key] = store.growth_of(key)
    return Pruning(bytes_to_free, kept_for_others, grows)


def carry_out(pruning: Pruning, store: Store) -> int:
    """Remove what may go. Returns the bytes that are free now."""
    freed = 0
    still_needed: set[str] = set()
    for key, growth in pruning.grows.items():
        with store.lock(key, timeout=0) as is_mine:
            if is_mine and store.has(key):
                store.make_whole(key)
                freed -= growth
        # of one that somebody else holds, all that it is put together from stays
        base = store.base_of(key)
        while base is not None:
            still_needed.add(base)
            base = store.base_of(base)
    # what is a difference goes before what it differs from, without which it would be no state that can be removed
    for key in sorted(pruning.bytes_to_free.keys() - still_needed, key=store.links, reverse=True):
        # whoever holds the lock is making the state, or removing it
        with store.lock(key, timeout=0) as is_mine:
            if is_mine and store.has(key):
                freed += store.prune(key)
    return freed


def states_to_make_again(sequences: Iterable[SequencePlan], store: Store) -> int:
    """How many states were pruned that the sequences have to train once more, on the way to what they lack."""
    again = set()
    for sequence in sequences:
        is_on_the_way = False
        for tasks_seen in range(len(sequence.keys) - 1, 0, -1):
            key = sequence.keys[tasks_seen]
            if store.has(key):
                is_on_the_way = False
                continue
            was_pruned = store.is_pruned(key)
            if was_pruned and (is_on_the_way or missing_columns(sequence, tasks_seen, store)):
                again.add(key)
            is_on_the_way = is_on_the_way or not was_pruned or key in again
    return len(again)


# What was planned in an output folder


def planned_groups(folder: Path, keep: Keep | None = None) -> list[Group]:
    """The groups of an experiment or a search, from its folder; `keep` instead of what its configuration says.

    Raises UserError where a plan cannot be read: what it needs is then not known.
    """
    # the folder may have been moved since it was written
    out = str(folder.resolve().parent.parent)
    keep = keep or keep_of(folder)
    groups = []
    plan = folder / PLANS
    if plan.exists():
        groups.append(Group(keep, _read_sequences(plan, out)))
    trials = trial_plans(out, folder.name)
    if trials.exists():
        is_over = _was_chosen_since(trials)
        groups.append(Group(keep, _read_sequences(trials, out), are_over=is_over, keeps_first=not is_over))
    return groups


def other_groups(out: str, name: str) -> Iterator[tuple[str, Group]]:
    """The groups of all other experiments in an output folder, each with its experiment's name."""
    for folder in sorted((folder_at(out) / "experiments").glob("*")):
        if folder.name != name:
            for group in planned_groups(folder):
                yield folder.name, group


def keep_of(folder: Path) -> Keep:
    """What an experiment's configuration says of its states."""
    try:
        return read_config(folder).checkpoints.keep
    except UserError:
        # of what cannot be read nothing is taken
        return "all"


def trial_plans(out: str, name: str) -> Path:
    """The file in which a search notes the sequences of its trials, a line each."""
    return search_folder(out, name) / "sequences.jsonl"


def note_trial(out: str, name: str, sequences: Iterable[SequencePlan]) -> None:
    """Note the sequences of a trial, unless they are noted."""
    file = trial_plans(out, name)
    noted = b"".join(_whole_lines(file)) if file.exists() else b""
    with appended(file, "ab") as stream:
        for sequence in sequences:
            if f'"id": "{sequence.id}"'.encode() not in noted:
                # the line before may be the half of one, of a process that died
                stream.write(b"\n" + seal(sequence.model_dump(mode="json")))


def noted_trials(out: str, name: str) -> tuple[SequencePlan, ...]:
    """The sequences of a search's trials so far. Raises UserError."""
    file = trial_plans(out, name)
    return _read_sequences(file, out) if file.exists() else ()


def reopen_trials(out: str, name: str) -> None:
    """Say that trials of a search run from now on, whatever it chose before."""
    file = trial_plans(out, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def _was_chosen_since(trials: Path) -> bool:
    """Whether a search has made its choice since it last noted a trial: then none of them goes on."""
    choice = trials.with_name("chosen.json")
    return choice.exists() and choice.stat().st_mtime_ns > trials.stat().st_mtime_ns


def _read_sequences(file: Path, out: str) -> tuple[SequencePlan, ...]:
    status = file.stat()
    return _read_unchanged(file, out, (status.st_mtime_ns, status.st_size))


@functools.lru_cache(maxsize=64)
def _read_unchanged(file: Path, out: str, version: tuple[int, int]) -> tuple[SequencePlan, ...]:
    """The sequences in a file of plans; read again when the file's `version` is another."""
    try:
        if file.name == PLANS:
            return read_plans(file, out)
        # a trial is noted before it runs: of half a line nothing was trained
        sequences = []
        for line in _whole_lines(file):
            plan = json.loads(line)
            plan.pop("crc", None)
            sequences.append(SequencePlan.model_validate({**plan, "out": out}))
        return tuple(sequences)
    except ValueError as error:
        reason = str(error).removeprefix(f"{file}: ").splitlines()[0]
        raise UserError(f"{file}: cannot be read, so nobody knows which states it needs: {reason}") from None


def _whole_lines(file: Path) -> Iterator[bytes]:
    """The lines of a search's plans that are as they were written: not what a process left that died, nor what is damaged."""
    for line in file.read_bytes().splitlines():
        if is_whole_plan(line):
            yield line


def is_whole_plan(line: bytes) -> bool:
    """Whether a line is a trial's plan as it was written."""
    if is_sound(line + b"\n"):
        return True
    # of before they were sealed: the last field is the plan's own
    return line[line.rfind(b', "') :].startswith(b', "out": "') and line.endswith(b'"}')


class Retention:
    """Prunes the states of one experiment or search while it runs; to be asked again and again."""

    def __init__(self, out: str, name: str, keep: Keep) -> None:
        self.folder = folder_at(out) / "experiments" / name
        self.keep = keep
        self.store = Store(folder_at(out))
        self._looked = time.monotonic()

    def look(self) -> None:
        """Prune what may go by now, unless it was done a moment ago."""
        if time.monotonic() - self._looked > SECONDS_BETWEEN_LOOKS:
            self.prune()

    def prune(self) -> int:
        """Prune what may go by now. Returns the bytes that are free."""
        if self.keep == "all":
            return 0
        freed = 0
        try:
            others = other_groups(str(self.store.root), self.folder.name)
            freed = carry_out(plan_pruning(self.store, planned_groups(self.folder, self.keep), others), self.store)
        # disk space is worth no run: the states stay, and `orchestrator prune` says why
        except (UserError, OSError) as error:
            logger.warning("no state is pruned: %s", error)
        self._looked = time.monotonic()
        return freed
