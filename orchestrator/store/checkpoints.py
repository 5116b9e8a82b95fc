"""The store below one folder: states under their content-derived keys, scores, and locks."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.store import scores
from orchestrator.store.integrity import file_sha256, write_whole
from orchestrator.store.locks import exclusive_lock
from orchestrator.store.state_files import (
    HISTORY_FILE,
    PackedState,
    ResumeState,
    State,
    pack_state,
    read_history,
    read_state,
    write_state,
)
from orchestrator.store.states.tensor_files import WrittenFile, write_bytes

__all__ = ["MANIFEST", "ResumeState", "State", "Store"]

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Store:
    """Checkpoints and scores below one folder, which all workers see."""

    root: Path

    def path(self, key: str) -> Path:
        """Where the checkpoint of that key is, or would be."""
        return self.root / "checkpoints" / key

    def has(self, key: str) -> bool:
        """Whether a complete checkpoint is there, with a manifest and a history that can be read.

        Its weights are checked by `is_sound`, which reads all of them.
        """
        # the small file stands for all: reading gigabytes of weights at each look would take longer than the look
        return self.has_history(key) and not self._was_pruned(key)

    def has_history(self, key: str) -> bool:
        """Whether a checkpoint was made, and how its training went is known: also of one that was pruned."""
        try:
            history = self._manifest(key)["files"][HISTORY_FILE]
            return file_sha256(self.path(key) / HISTORY_FILE) == history["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def is_pruned(self, key: str) -> bool:
        """Whether a checkpoint was made, and all but its history was removed on purpose."""
        return self.has_history(key) and self._was_pruned(key)

    def _was_pruned(self, key: str) -> bool:
        return "pruned" in self._manifest(key)

    def prune(self, key: str) -> int:
        """Remove a state that is no longer needed, and keep its history. Returns the bytes that are free now.

        Call it with the key locked.
        """
        folder = self.path(key)
        freed = self.prunable_bytes(key)
        manifest = self._manifest(key)
        manifest |= {"files": {HISTORY_FILE: manifest["files"][HISTORY_FILE]}, "pruned": {"bytes": freed}}
        # said first: a process that dies now leaves files that nobody takes for a state, not a state without its files
        write_whole(folder / MANIFEST, _as_json(manifest))
        for file in folder.iterdir():
            if file.name not in (MANIFEST, HISTORY_FILE):
                file.unlink()
        return freed

    def prunable_bytes(self, key: str) -> int:
        """The bytes of a state without its history."""
        return self.size(key) - int(self._manifest(key)["files"][HISTORY_FILE]["bytes"])

    def lock(self, name: str, timeout: float) -> AbstractContextManager[bool]:
        """Try to be the only one who makes what has that name; gives False if another still is after `timeout` seconds."""
        return exclusive_lock(self.root / "locks", name, timeout)

    def save(self, key: str, state: State, made_by: Mapping[str, Any]) -> int:
        """Write a checkpoint and return its size in bytes. Call it with the key locked."""
        return self.write(key, pack_state(state), made_by)

    def write(self, key: str, packed: PackedState, made_by: Mapping[str, Any]) -> int:
        """The same of a state that was packed. The folder appears under its name only when complete."""
        final = self.path(key)
        # what a process left that died here: nobody else writes this key now
        for leftover in final.parent.glob(f".{key}.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if self.is_pruned(key):
            shutil.rmtree(final)
        elif final.exists() and not self.has(key):
            self.set_aside(key)
        unfinished = final.with_name(f".{key}.{uuid.uuid4().hex[:8]}")
        unfinished.mkdir(parents=True)
        try:
            files = write_state(unfinished, packed)
            # written last, and on the disk before the name that vouches for it: a folder that has it is complete
            _write_manifest(unfinished, key, made_by, files)
            # if another process made the same state first after all, its bytes serve as well
            if not self.has(key):
                unfinished.rename(final)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return self.size(key)

    def is_sound(self, key: str) -> bool:
        """Whether every file of a checkpoint is as its manifest lists it."""
        folder = self.path(key)
        try:
            if self._was_pruned(key):
                return False
            for name, entry in self._manifest(key)["files"].items():
                if file_sha256(folder / name) != entry["sha256"]:
                    return False
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return True

    def load(self, key: str, resume_state: bool = False) -> State:
        """Read a checkpoint; with its resume state, if it has one and that is wanted."""
        return read_state(self.path(key), resume_state)

    def history(self, key: str) -> dict[str, Any]:
        """How the last task of a checkpoint went, without reading its weights."""
        return read_history(self.path(key))

    def maker(self, key: str) -> str:
        """The id of the sequence that trained the last task of a checkpoint."""
        return str(self._manifest(key)["made_by"].get("sequence"))

    def versions(self, key: str) -> dict[str, str]:
        """The versions of the libraries that a checkpoint's last task was trained with; empty where it does not say."""
        return dict(self._manifest(key)["made_by"].get("versions", {}))

    def size(self, key: str) -> int:
        """The number of bytes of a checkpoint's files; of one that was pruned, what they were."""
        manifest = self._manifest(key)
        total = int(manifest.get("pruned", {"bytes": 0})["bytes"])
        for entry in manifest["files"].values():
            total += int(entry["bytes"])
        return total

    def _manifest(self, key: str) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads((self.path(key) / MANIFEST).read_text())
        return manifest

    def set_aside(self, key: str) -> None:
        """Move a corrupt checkpoint out of the way, so that its state is made again; its files are kept to look at."""
        folder = self.path(key)
        # a number of its own: the same state may turn out corrupt once more
        folder.rename(folder.with_name(f"{key}.corrupt-{uuid.uuid4().hex[:6]}"))

    def load_score(self, key: str) -> dict[str, Any] | None:
        """The score of that key with what is recorded with it; None where it has to be computed."""
        return scores.load_score(self.root, key)

    def save_score(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep a score; it appears whole or not at all."""
        scores.save_score(self.root, key, record)


def _write_manifest(folder: Path, key: str, made_by: Mapping[str, Any], files: Mapping[str, WrittenFile]) -> None:
    entries: dict[str, dict[str, Any]] = {}
    for name in sorted(files):
        entries[name] = files[name].entry()
    manifest = {"key": key, "made_by": made_by, "files": entries}
    write_bytes(folder / MANIFEST, [_as_json(manifest)])


def _as_json(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest, indent=1).encode()
