"""The store of states: each under its content-derived key, written aside, its manifest last."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file
from torch import Tensor

MANIFEST = "manifest.json"


RESUME_FILE = "resume.safetensors"


@dataclass(frozen=True)
class ResumeState:
    """Where the next task begins, if not at the weights that are scored: weights, and the optimizer's state by parameter."""

    weights: Mapping[str, Tensor]
    optimizer_state: Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class State:
    """What training a task leaves: trained weights, the method's memory, and the log of how it went.

    `history` holds `seconds` (of training), `steps` (the journal's step events), `spent` (steps, tokens and flops) and the
    method's `diagnostics`.
    """

    weights: Mapping[str, Tensor]
    method: Mapping[str, Any]
    history: Mapping[str, Any]
    resume_state: ResumeState | None = None


@dataclass(frozen=True)
class Store:
    """Checkpoints and cells below one folder, which all workers see."""

    root: Path

    def path(self, key: str) -> Path:
        """Where the checkpoint of that key is, or would be."""
        return self.root / "checkpoints" / key

    def has(self, key: str) -> bool:
        """Whether a complete checkpoint is there."""
        return (self.path(key) / MANIFEST).exists()

    @contextlib.contextmanager
    def lock(self, key: str, timeout: float) -> Iterator[bool]:
        """Try to be the only one that makes this state; gives False if another still is after `timeout` seconds.

        A lock of the operating system: it ends with the process that holds it.
        """
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{key}.lock")
        try:
            lock.acquire(timeout=timeout, poll_interval=0.1)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def save(self, key: str, state: State, made_by: Mapping[str, Any]) -> int:
        """Write a checkpoint and return its size in bytes. The folder appears under its name only when complete.

        Call it with the key claimed.
        """
        final = self.path(key)
        for left in final.parent.glob(f".{key}.*"):
            shutil.rmtree(left, ignore_errors=True)  # of a process that died here
        if final.exists() and not self.has(key):
            self.set_aside(key)
        aside = final.with_name(f".{key}.{uuid.uuid4().hex[:8]}")
        aside.mkdir(parents=True)
        try:
            tensors, plain = _split_tensors(state.method)
            save_file(
                {k: v.detach().cpu().contiguous() for k, v in state.weights.items()}, aside / "weights.safetensors"
            )
            save_file(tensors, aside / "method.safetensors")
            if state.resume_state:
                parts = {"weights": state.resume_state.weights, "moments": state.resume_state.optimizer_state}
                save_file(_split_tensors(parts)[0], aside / RESUME_FILE)
            (aside / "method.json").write_text(json.dumps(plain))
            (aside / "history.json").write_text(json.dumps(state.history))
            files = {f.name: {"sha256": _file_sha(f), "bytes": f.stat().st_size} for f in sorted(aside.iterdir())}
            manifest = {"key": key, "made_by": made_by, "files": files}
            (aside / MANIFEST).write_text(json.dumps(manifest, indent=1))
            _sync(aside)
            if not self.has(key):  # else another process made the same state first: its bytes serve as well
                aside.rename(final)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return self.size(key)

    def is_sound(self, key: str) -> bool:
        """Whether every file of a checkpoint is as its manifest lists it."""
        folder = self.path(key)
        try:
            files: dict[str, Any] = json.loads((folder / MANIFEST).read_text())["files"]
            return not [name for name, entry in files.items() if _file_sha(folder / name) != entry["sha256"]]
        except (OSError, ValueError, KeyError):
            return False

    def load(self, key: str, resume_state: bool = False) -> State:
        """Read a checkpoint; with its trunk, if it has one and that is wanted."""
        folder = self.path(key)
        plain = json.loads((folder / "method.json").read_text())
        method = _join_tensors(plain, load_file(folder / "method.safetensors"))
        found = _read_resume_state(folder / RESUME_FILE) if resume_state and (folder / RESUME_FILE).exists() else None
        return State(load_file(folder / "weights.safetensors"), method, self.history(key), found)

    def history(self, key: str) -> dict[str, Any]:
        """How the last task of a checkpoint went, without reading its weights."""
        history: dict[str, Any] = json.loads((self.path(key) / "history.json").read_text())
        return history

    def size(self, key: str) -> int:
        """Bytes of a checkpoint's files."""
        manifest = json.loads((self.path(key) / MANIFEST).read_text())
        return sum(int(entry["bytes"]) for entry in manifest["files"].values())

    def set_aside(self, key: str) -> None:
        """Move a corrupt checkpoint out of the way, so that its state is made again; its files are kept to look at."""
        folder = self.path(key)
        folder.rename(folder.with_name(f"{key}.corrupt-{uuid.uuid4().hex[:6]}"))

    def load_score(self, cell_key: str) -> dict[str, Any] | None:
        """A cached score, or None."""
        try:
            cell: dict[str, Any] = json.loads(self._score_path(cell_key).read_text())
        except FileNotFoundError:
            return None
        return cell

    def save_score(self, cell_key: str, cell: Mapping[str, Any]) -> None:
        """Cache a score; it appears whole or not at all."""
        path = self._score_path(cell_key)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        aside.write_text(json.dumps(cell))
        aside.rename(path)

    def _score_path(self, cell_key: str) -> Path:
        return self.root / "scores" / f"{cell_key}.json"


def _file_sha(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_resume_state(file: Path) -> ResumeState:
    weights: dict[str, Tensor] = {}
    optimizer_state: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for place, tensor in load_file(file).items():
        kind, name, *moment = place.split("/")
        if kind == "weights":
            weights[name] = tensor
        else:
            optimizer_state[name][moment[0]] = tensor
    return ResumeState(weights, dict(optimizer_state))


def _sync(folder: Path) -> None:
    """Have the bytes on disk before the name."""
    for file in folder.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())


def _split_tensors(value: Mapping[str, Any], prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Nested state as a flat dict of tensors and a nested dict of plain values; a tensor leaves a `{"tensor": name}`."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, torch.Tensor):
            tensors[name] = item.detach().cpu().contiguous().clone()
            plain[key] = {"tensor": name}
        elif isinstance(item, Mapping):
            inner, plain[key] = _split_tensors(item, name + "/")
            tensors |= inner
        elif isinstance(item, int | float | str | bool | list | tuple | None):
            plain[key] = item
        else:
            raise TypeError(
                f"method state {name!r} is a {type(item).__name__}: only tensors and plain values are saved"
            )
    return tensors, plain


def _join_tensors(plain: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for key, item in plain.items():
        if isinstance(item, dict) and set(item) == {"tensor"}:
            joined[key] = tensors[item["tensor"]]
        elif isinstance(item, dict):
            joined[key] = _join_tensors(item, tensors)
        else:
            joined[key] = item
    return joined
