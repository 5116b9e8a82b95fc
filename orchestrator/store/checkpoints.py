"""The store below one folder: states under their content-derived keys, scores, and locks."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from orchestrator.storage.folders import made_whole, move_folder, remove_folder
from orchestrator.storage.places import is_local
from orchestrator.store import scores
from orchestrator.store.integrity import file_sha256, seal, sync_files, unseal_file, write_whole
from orchestrator.store.locks import exclusive_lock
from orchestrator.store.states.deltas import pack_difference, unpack_difference
from orchestrator.store.states.state_files import (
    DELTA_FILE,
    DELTA_FORM_FILE,
    HISTORY_FILE,
    WEIGHTS_FILE,
    PackedState,
    ResumeState,
    State,
    pack_state,
    read_history,
    read_state,
    write_state,
)
from orchestrator.store.states.tensor_files import (
    WrittenFile,
    digest_bytes,
    read_tensors,
    tensor_parts,
    write_bytes,
    write_tensors,
)

__all__ = ["MANIFEST", "ResumeState", "State", "Store"]

MANIFEST = "manifest.json"
# To read a state is to read all that it differs from: after so many, one is stored whole
MOST_LINKS = 7
# What reading a manifest raises that is not there, is damaged, or is none
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError)


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
        manifest = self._vouched_for(key)
        return manifest is not None and "pruned" not in manifest and self._has_base(manifest)

    def has_history(self, key: str) -> bool:
        """Whether a checkpoint was made, and how its training went is known: also of one that was pruned."""
        return self._vouched_for(key) is not None

    def is_pruned(self, key: str) -> bool:
        """Whether a checkpoint was made, and all but its history was removed on purpose."""
        manifest = self._vouched_for(key)
        return manifest is not None and "pruned" in manifest

    def _vouched_for(self, key: str) -> dict[str, Any] | None:
        """The manifest of a checkpoint whose history is as it says; None where there is none."""
        try:
            manifest = self._manifest(key)
            # read at once: in an object store, opening it would be a request of its own
            history = (self.path(key) / HISTORY_FILE).read_bytes()
            is_whole = hashlib.sha256(history).hexdigest() == manifest["files"][HISTORY_FILE]["sha256"]
        except _UNREADABLE:
            return None
        return manifest if is_whole else None

    def prune(self, key: str) -> int:
        """Remove a state that is no longer needed, and keep its history. Returns the bytes that are free now.

        Call it with the key locked.
        """
        folder = self.path(key)
        freed = self.prunable_bytes(key)
        manifest = self._manifest(key)
        manifest.pop("base", None)
        manifest |= {"files": {HISTORY_FILE: manifest["files"][HISTORY_FILE]}, "pruned": {"bytes": freed}}
        # said first: a process that dies now leaves files that nobody takes for a state, not a state without its files
        write_whole(folder / MANIFEST, seal(manifest))
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

    def write(self, key: str, packed: PackedState, made_by: Mapping[str, Any], base: str | None = None) -> int:
        """The same of a state that was packed. The folder appears under its name only when complete.

        The weights are written as their difference from those of the state `base`, where that is smaller.
        """
        final = self.path(key)
        if self.is_pruned(key):
            remove_folder(final)
        # in an object store, files without a manifest are what a process left that died while it wrote them
        elif (final if is_local(final) else final / MANIFEST).exists() and not self.has(key):
            self.set_aside(key)
        with made_whole(final, lambda: self.has(key)) as folder:
            about_base: Mapping[str, Any] = {}
            if base is not None:
                packed, about_base = self._as_difference(packed, base)
            files = write_state(folder, packed)
            # written last: a folder that has it is complete
            _write_manifest(folder, {"key": key, "made_by": made_by, **about_base}, files)
            # All at once, which takes a disk less time than one after the other. The manifest too must be there before the
            # name that vouches for it.
            sync_files(folder)
        return self.size(key)

    def is_sound(self, key: str) -> bool:
        """Whether every file of a checkpoint is as its manifest lists it, and of those that it is a difference from."""
        if not self.has_sound_files(key):
            return False
        manifest = self._manifest(key)
        if "pruned" in manifest or not self._has_base(manifest):
            return False
        return "base" not in manifest or self.is_sound(manifest["base"]["key"])

    def has_sound_files(self, key: str) -> bool:
        """Whether every file of a checkpoint is as its manifest lists it; of one that was pruned, the one that is left."""
        folder = self.path(key)
        try:
            for name, entry in self._manifest(key)["files"].items():
                if file_sha256(folder / name) != entry["sha256"]:
                    return False
            return True
        except _UNREADABLE:
            return False

    def load(self, key: str, resume_state: bool = False) -> State:
        """Read a checkpoint; with its resume state, if it has one and that is wanted."""
        return read_state(self.path(key), resume_state, self.weights(key))

    def weights(self, key: str) -> dict[str, Tensor]:
        """The weights of a checkpoint, as they are stored or put together from the states that they differ from."""
        folder = self.path(key)
        base = self.base_of(key)
        if base is None:
            return read_tensors(folder / WEIGHTS_FILE)
        form = (folder / DELTA_FORM_FILE).read_bytes()
        return unpack_difference(read_tensors(folder / DELTA_FILE), form, self.weights(base))

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
        return unseal_file((self.path(key) / MANIFEST).read_bytes())

    # Differences

    def base_of(self, key: str) -> str | None:
        """The state from which a checkpoint's weights are stored as a difference; None where they are whole, or gone."""
        base = self._manifest(key).get("base")
        return None if base is None else str(base["key"])

    def _has_base(self, manifest: Mapping[str, Any]) -> bool:
        """Whether the weights that a difference is from are there, bit for bit as they were; True where it is none."""
        base = manifest.get("base")
        if base is None:
            return True
        # made again by other workers, its last bits may be others
        return self.has(base["key"]) and self._whole(base["key"])["sha256"] == base["sha256"]

    def _whole(self, key: str) -> dict[str, Any]:
        """Hash and bytes of the file that has, or would have, a checkpoint's weights as they are."""
        manifest = self._manifest(key)
        whole: dict[str, Any] = manifest.get("whole") or manifest["files"][WEIGHTS_FILE]
        return whole

    def _as_difference(self, packed: PackedState, base: str) -> tuple[PackedState, Mapping[str, Any]]:
        """A state with its weights as their difference from a base's, and what its manifest says of that.

        As it was, where the base is not there, has too many differences behind it, or the difference is no smaller.
        """
        if not self.is_sound(base) or self.links(base) >= MOST_LINKS:
            return packed, {}
        tensors = dict(packed.tensors)
        weights = tensors.pop(WEIGHTS_FILE)
        tensors[DELTA_FILE], form = pack_difference(weights, self.weights(base))
        size = len(form) + sum(len(content) for content in tensors[DELTA_FILE].values())
        whole = digest_bytes(tensor_parts(weights))
        if size >= whole.bytes:
            return packed, {}
        about = {"base": {"key": base, "sha256": self._whole(base)["sha256"]}, "whole": whole.entry()}
        return PackedState(tensors, {**packed.texts, DELTA_FORM_FILE: form}), about

    def links(self, key: str) -> int:
        """How many differences have to be put together for a checkpoint's weights."""
        base = self.base_of(key)
        return 0 if base is None else 1 + self.links(base)

    def make_whole(self, key: str) -> None:
        """Store a checkpoint's weights as they are, so that what they differ from may go. Call it with the key locked."""
        folder = self.path(key)
        manifest = self._manifest(key)
        written = write_tensors(folder / WEIGHTS_FILE, self.weights(key))
        if written.entry() != manifest["whole"]:
            raise ValueError(f"the weights of checkpoint {folder} are not what they were when it was written")
        del manifest["base"], manifest["whole"]
        for name in (DELTA_FILE, DELTA_FORM_FILE):
            del manifest["files"][name]
        manifest["files"][WEIGHTS_FILE] = written.entry()
        sync_files(folder)
        # in this order a process that dies at any point leaves a state that can be read
        write_whole(folder / MANIFEST, seal(manifest))
        for name in (DELTA_FILE, DELTA_FORM_FILE):
            (folder / name).unlink()

    def growth_of(self, key: str) -> int:
        """The bytes that a checkpoint grows by where it is made whole."""
        files = self._manifest(key)["files"]
        return int(self._whole(key)["bytes"]) - int(files[DELTA_FILE]["bytes"]) - int(files[DELTA_FORM_FILE]["bytes"])

    def all_keys(self) -> list[str]:
        """The keys of all checkpoints that are there, whoever made them."""
        keys = []
        for folder in sorted((self.root / "checkpoints").glob("*")):
            # neither what is being written nor what was set aside
            if "." not in folder.name and self.has(folder.name):
                keys.append(folder.name)
        return keys

    def set_aside(self, key: str) -> None:
        """Move a corrupt checkpoint out of the way, so that its state is made again; its files are kept to look at."""
        # a number of its own: the same state may turn out corrupt once more
        move_folder(self.path(key), f"{key}.corrupt-{uuid.uuid4().hex[:6]}")

    def load_score(self, key: str) -> dict[str, Any] | None:
        """The score of that key with what is recorded with it; None where it has to be computed."""
        return scores.load_score(self.root, key)

    def load_scores(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The scores of those keys that need not be computed."""
        return scores.load_scores(self.root, keys)

    def save_score(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep a score; it appears whole or not at all."""
        scores.save_score(self.root, key, record)


def _write_manifest(folder: Path, about: Mapping[str, Any], files: Mapping[str, WrittenFile]) -> None:
    entries: dict[str, dict[str, Any]] = {}
    for name in sorted(files):
        entries[name] = files[name].entry()
    write_bytes(folder / MANIFEST, [seal({**about, "files": entries})])
