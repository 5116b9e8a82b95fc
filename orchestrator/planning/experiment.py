"""An experiment in the output folder: what was asked for, and what its journals say by now."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from orchestrator.config.experiment import RunConfig
from orchestrator.config.messages import explain
from orchestrator.errors import UserError, shown
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.redaction import HIDDEN, redacted
from orchestrator.storage.door import check_conditions, check_locks
from orchestrator.storage.lines import has_lines_of
from orchestrator.storage.places import folder_at, is_local, local_folder
from orchestrator.store.integrity import seal, seal_text, unseal, unseal_text, write_whole

CONFIG = "config.yaml"
PLANS = "sequences.json"
# MLflow's own name for it
URI_VARIABLE = "MLFLOW_TRACKING_URI"
# What reading a file raises that is damaged, or is none of an experiment
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, yaml.YAMLError, RecursionError)


@dataclass(frozen=True)
class Experiment:
    """A configuration and its sequences."""

    config: RunConfig
    sequences: tuple[SequencePlan, ...]

    @property
    def folder(self) -> Path:
        """Where its configuration and its report are."""
        return folder_at(self.config.out) / "experiments" / self.config.name

    def save(self) -> None:
        """Write what was asked for. Raises UserError where the output folder cannot be written."""
        configuration = yaml.safe_dump(stored_values(self.config), sort_keys=False)
        plans = [sequence.model_dump(mode="json") for sequence in self.sequences]
        try:
            write_whole(self.folder / CONFIG, seal_text(configuration))
            # written last: it is by this file that a folder is known as an experiment's
            write_whole(self.folder / PLANS, seal({"sequences": plans}) + b"\n")
        except OSError as error:
            raise UserError(f"out: cannot write to {self.config.out!r}: {error.strerror}") from error

    def is_saved(self) -> bool:
        """Whether a plan of that name is in the output folder."""
        return (self.folder / PLANS).exists()


def search_folder(out: str, name: str) -> Path:
    """Where a search of that name keeps its journal, its choice and its plots."""
    return folder_at(out) / "experiments" / name / "search"


def is_search_folder(out: str, name: str) -> bool:
    """Whether an experiment's folder is that of a search."""
    return has_lines_of(search_folder(out, name), "search")


def stored_values(config: RunConfig) -> dict[str, Any]:
    """A configuration as it is kept: without the password of the tracking server."""
    values = config.model_dump(mode="json")
    if config.tracking.uri is not None:
        values["tracking"]["uri"] = redacted(config.tracking.uri)
    return values


def tracking_uri(config: RunConfig) -> str:
    """The MLflow store, password and all: the one asked for, or an sqlite file in the output folder; beside it, where that is no
    disk.

    Raises UserError where the URI is a kept one, whose password is given nowhere.
    """
    uri = config.tracking.uri or f"sqlite:///{local_folder(config.out)}/mlflow.db"
    if HIDDEN not in uri:
        return uri
    given = os.environ.get(URI_VARIABLE, "")
    if redacted(given) != uri:
        raise UserError(
            f"tracking.uri: {uri} has no password, which is kept nowhere; give the whole URI in {URI_VARIABLE}"
        )
    return given


def open_experiment(run: str, out: str) -> Experiment:
    """The experiment of that name in `out`, or in that folder. Raises UserError."""
    # a folder given as it is wins: it may be a copy that lies outside every output folder
    folder = folder_at(run)
    if not _has_plan(folder):
        folder = folder_at(out) / "experiments" / run
    if not _has_plan(folder):
        raise UserError(f"no experiment {shown(run)} in {shown(out)}: {_what_there_is(folder_at(out))}")
    # the folder may have been moved or copied since: what counts is where it is now
    here = str(folder.resolve().parent.parent)
    sequences = read_plans(folder / PLANS, here)
    if not sequences:
        raise UserError(f"{folder / PLANS}: it has no sequence")
    return Experiment(read_config(folder).model_copy(update={"out": here}), sequences)


def _has_plan(folder: Path) -> bool:
    try:
        return (folder / CONFIG).exists() and (folder / PLANS).exists()
    # no folder can have such a name
    except (OSError, ValueError):
        return False


def read_plans(file: Path, out: str) -> tuple[SequencePlan, ...]:
    """The sequences in a file of plans, in the output folder where they are now. Raises UserError."""
    try:
        content = file.read_bytes()
        plans = json.loads(content) if _is_old(content) else unseal(content)["sequences"]
        sequences = []
        for plan in plans:
            sequences.append(SequencePlan.model_validate({**plan, "out": out}))
        return tuple(sequences)
    except _UNREADABLE as error:
        raise UserError(f"{file}: {_why_unreadable(error)}") from None


def read_config(folder: Path) -> RunConfig:
    """The configuration in an experiment's folder. Raises UserError."""
    file = folder / CONFIG
    try:
        content = file.read_bytes()
        # both files are sealed or neither, so that one which lost its last line is not taken for one of before
        is_old = _is_old((folder / PLANS).read_bytes())
        text = content.decode() if is_old else unseal_text(content)
        return RunConfig.model_validate(yaml.safe_load(text))
    except _UNREADABLE as error:
        raise UserError(f"{file}: {_why_unreadable(error)}") from None


def _is_old(plans: bytes) -> bool:
    """Whether a file of plans is from before they were sealed: then it is a list, and the configuration has no seal either."""
    return plans[:1] == b"["


def _why_unreadable(error: Exception) -> str:
    """Why a file of an experiment cannot be read, in one line."""
    reason = str(error).strip().splitlines()[0]
    # of many errors the first line of pydantic's message is their number alone
    if isinstance(error, ValidationError):
        return f"not an experiment that this version can read: {explain(error)}"
    return f"damaged ({reason}); the same `orchestrator run` or `tune` command writes it anew"


def _what_there_is(out: Path) -> str:
    folders = sorted((out / "experiments").glob("*"))
    if not folders:
        return "it has none"
    return "it has " + ", ".join(folder.name for folder in folders)


def check_writable(out: str) -> None:
    """Raises UserError where nothing can be written below `out`, or no lock is one, before anything is computed for it."""
    folder = folder_at(out)
    if not is_local(folder):
        check_conditions(out)
        return
    made: list[Path] = []
    try:
        # by trying: of /proc, of a name that is too long and of a full disk, permissions say nothing
        for part in (*reversed(folder.parents), folder):
            if not part.exists():
                part.mkdir()
                made.append(part)
        with tempfile.TemporaryFile(dir=out):
            pass
        check_locks(folder)
    except OSError as error:
        raise UserError(f"out: cannot write to {shown(out)}: {error.strerror}") from None
    finally:
        for part in reversed(made):
            # another command may have begun to write there meanwhile
            with contextlib.suppress(OSError):
                part.rmdir()
