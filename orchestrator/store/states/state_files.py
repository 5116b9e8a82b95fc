"""The files of a checkpoint: tensors as safetensors, plain values as JSON.

`weights.safetensors` holds the weights, as they are or in a form of the method's own (`methods.StoredForm`); in its place
`weights.delta.safetensors` and `weights.delta.json` hold their difference from another state's (`states.deltas`);
`method.safetensors` and `method.json` the method's nested state, whose tensors are named by their path; `resume.safetensors`,
where there is one, the resume state; `history.json` how the training went.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orchestrator.store.states.tensor_files import WrittenFile, read_tensors, write_bytes, write_tensors

WEIGHTS_FILE = "weights.safetensors"
DELTA_FILE = "weights.delta.safetensors"
DELTA_FORM_FILE = "weights.delta.json"
METHOD_TENSORS_FILE = "method.safetensors"
METHOD_VALUES_FILE = "method.json"
RESUME_FILE = "resume.safetensors"
HISTORY_FILE = "history.json"


@dataclass(frozen=True)
class ResumeState:
    """Where the next task begins, if not at the weights that are scored: weights, and the optimizer's state by parameter."""

    weights: Mapping[str, Tensor]
    optimizer_state: Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class State:
    """What training a task leaves: trained weights as they are stored, the method's memory, and the log of how it went.

    `history` holds `seconds` (of training), `steps` (the journal's step events), `usage` (steps, tokens and FLOPs) and the
    method's `diagnostics`.
    """

    weights: Mapping[str, Tensor]
    method: Mapping[str, Any]
    history: Mapping[str, Any]
    resume_state: ResumeState | None = None


@dataclass(frozen=True)
class PackedState:
    """A state as its files hold it, by their names: tensors on the CPU, which nobody else has, and text that is encoded."""

    tensors: Mapping[str, Mapping[str, Tensor]]
    texts: Mapping[str, bytes]


def pack_state(state: State) -> PackedState:
    """A copy of a state in which later training changes nothing. Raises TypeError where a method's state cannot be saved."""
    method_tensors, method_values = _split_tensors(state.method)
    weights: dict[str, Tensor] = {}
    for name, weight in state.weights.items():
        weights[name] = _copied(weight)
    tensors = {WEIGHTS_FILE: weights, METHOD_TENSORS_FILE: method_tensors}
    if state.resume_state:
        parts = {"weights": state.resume_state.weights, "optimizer_state": state.resume_state.optimizer_state}
        tensors[RESUME_FILE], _ = _split_tensors(parts)
    texts = {
        METHOD_VALUES_FILE: json.dumps(method_values).encode(),
        HISTORY_FILE: json.dumps(state.history).encode(),
    }
    return PackedState(tensors, texts)


def write_state(folder: Path, packed: PackedState) -> dict[str, WrittenFile]:
    """Write the files of a state into an empty folder. Gives each file's hash and size."""
    written: dict[str, WrittenFile] = {}
    for name, tensors in packed.tensors.items():
        written[name] = write_tensors(folder / name, tensors)
    for name, text in packed.texts.items():
        written[name] = write_bytes(folder / name, [text])
    return written


def read_state(folder: Path, resume_state: bool, weights: Mapping[str, Tensor] | None = None) -> State:
    """The state whose files are in a folder; with its resume state, if it has one and that is wanted.

    `weights` are those of a state whose folder has but their difference from another's.
    """
    method_values = json.loads((folder / METHOD_VALUES_FILE).read_text())
    method = _join_tensors(method_values, _aligned(read_tensors(folder / METHOD_TENSORS_FILE)))
    resumed = None
    # the optimizer's state is twice the size of the weights, and scoring needs none of it
    if resume_state and (folder / RESUME_FILE).exists():
        resumed = _read_resume_state(folder / RESUME_FILE)
    if weights is None:
        weights = read_tensors(folder / WEIGHTS_FILE)
    return State(weights, method, read_history(folder), resumed)


def read_history(folder: Path) -> dict[str, Any]:
    """How the training of a state went."""
    history: dict[str, Any] = json.loads((folder / HISTORY_FILE).read_text())
    return history


def _aligned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in memory of torch's own, as they were when they were written.

    The file's tensors begin wherever their predecessors end, and kernels round differently where memory begins elsewhere:
    a resumed run would differ from one that never stopped in the last bit.
    """
    copies: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        copies[name] = tensor.clone()
    return copies


def _read_resume_state(file: Path) -> ResumeState:
    weights: dict[str, Tensor] = {}
    optimizer_state: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for path, tensor in _aligned(read_tensors(file)).items():
        # weights/<parameter>, or optimizer_state/<parameter>/<entry>: no parameter's name has a slash
        kind, parameter, *entry = path.split("/")
        if kind == "weights":
            weights[parameter] = tensor
        else:
            optimizer_state[parameter][entry[0]] = tensor
    return ResumeState(weights, dict(optimizer_state))


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _split_tensors(values: Mapping[str, Any], prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Nested values as a flat dict of tensors and a nested dict of plain values; a tensor leaves a `{"tensor": path}`."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for key, item in values.items():
        path = f"{prefix}{key}"
        if isinstance(item, torch.Tensor):
            tensors[path] = _copied(item)
            plain[key] = {"tensor": path}
        elif isinstance(item, Mapping):
            inner_tensors, plain[key] = _split_tensors(item, path + "/")
            tensors |= inner_tensors
        elif isinstance(item, int | float | str | bool | list | tuple | None):
            plain[key] = item
        else:
            kind = type(item).__name__
            raise TypeError(f"method state {path!r} is a {kind}: only tensors and plain values are saved")
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
