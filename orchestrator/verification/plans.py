"""The files in an experiment's own folder: configuration, plan, and what a search keeps beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.planning.experiment import CONFIG, PLANS, read_config, read_plans
from orchestrator.retention import is_whole_plan, planned_groups, trial_plans
from orchestrator.search.choice import CHOSEN, choices_made, stated_sha256
from orchestrator.search.results import SEARCH
from orchestrator.storage.places import folder_at
from orchestrator.store.integrity import unseal_file
from orchestrator.verification.findings import Finding, Remedy
from orchestrator.verification.lines import damaged_lines, is_whole_event
from orchestrator.verification.sequences import SequenceFiles


@dataclass(frozen=True)
class Planned:
    """What was planned under one name: the folder, and the sequences of the experiment and of the search's trials."""

    folder: Path
    sequences: tuple[SequenceFiles, ...]

    @property
    def out(self) -> Path:
        """The output folder that it is in."""
        return self.folder.parent.parent

    @property
    def search(self) -> Path:
        """Where a search keeps its own files."""
        return self.folder / "search"


def find_planned(run: str, out: str) -> Planned:
    """What was planned under a name, or in a folder. Raises UserError where there is nothing."""
    folder = folder_at(run)
    if not (folder / PLANS).exists():
        folder = folder_at(out) / "experiments" / run
    if not folder.is_dir():
        raise UserError(f"no experiment {run!r} in {out!r}")
    folder = folder.resolve()
    sequences: dict[str, SequenceFiles] = {}
    try:
        for group in planned_groups(folder, "all"):
            for sequence in group.sequences:
                sequences.setdefault(sequence.id, SequenceFiles(sequence, group.are_over))
    except UserError:
        # one of the files that are looked at: it is named, and of the rest nothing is known
        sequences = {}
    return Planned(folder, tuple(sequences.values()))


def damaged_plan_files(planned: Planned) -> Iterator[Finding]:
    """Damage of the files from which all others are known."""
    folder = planned.folder
    if (folder / PLANS).exists():
        try:
            read_plans(folder / PLANS, str(planned.out))
        except UserError as error:
            yield Finding(folder / PLANS, _reason(error), Remedy.REWRITE)
        try:
            read_config(folder)
        except UserError as error:
            yield Finding(folder / CONFIG, _reason(error), Remedy.REWRITE)
    elif (folder / CONFIG).exists():
        yield Finding(folder / PLANS, "it is missing", Remedy.REWRITE)
    if planned.search.is_dir():
        yield from _damaged_search_files(planned.search, trial_plans(str(planned.out), folder.name))


def _damaged_search_files(folder: Path, trials: Path) -> Iterator[Finding]:
    chosen = folder / CHOSEN
    if chosen.exists() and stated_sha256(chosen) not in choices_made(folder):
        yield Finding(chosen, "these are not the values that the search chose", Remedy.REWRITE)
    described = folder / SEARCH
    if described.exists():
        try:
            unseal_file(described.read_bytes())
        except (OSError, ValueError) as error:
            yield Finding(described, str(error), Remedy.REWRITE)
    for file in folder.glob("*.jsonl"):
        # a journal has events alone, the plans of trials are none
        is_sound = is_whole_plan if file == trials else is_whole_event
        yield from damaged_lines(file, is_sound, Remedy.REWRITE)


def _reason(error: UserError) -> str:
    # behind the path of the file, which is told beside it
    return str(error).partition(": ")[2]
