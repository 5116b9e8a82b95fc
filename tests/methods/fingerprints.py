"""Fingerprints of what each preset trains, and the versions under which they were recorded.

A checkpoint is known by settings, a format and the versions on the cards. So what computes another result than before must
have another version: `problems` says where it has not. `python -m tests.methods.fingerprints --write` records new ones.
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from methods import PRESETS, MethodSpec, method_spec
from orchestrator.contract.subject import exact_arithmetic
from orchestrator.planning.keys import CHECKPOINT_FORMAT
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import State
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from orchestrator.training.task import train_task
from streams import Stream
from tests.conftest import small_config

FILE = Path(__file__).with_name("fingerprints.json")
WRITE = "run `python -m tests.methods.fingerprints --write`"
# What the same code gives in float64 on other machines or with more threads differs by less, and what a change of a
# formula gives by more.
TOLERANCE = 1e-8
# plain training on the other families, whose code no preset on T5 runs
FAMILIES = {"ft on tiny-bert": "tiny-bert", "ft on tiny-llama": "tiny-llama"}
# plug-ins that no preset can have, as they name models that are not here; with the settings of their cards they need none
WITHOUT_PRESET = {"chat-vector": {"tuning": "full", "plugins": ["chat_vector"]}}
SUBJECTS = (*PRESETS, *WITHOUT_PRESET, *FAMILIES)

Record = dict[str, Any]


def spec_of(subject: str) -> MethodSpec:
    """The method of a subject, with such settings that a few steps of a small model show that its parts act."""
    preset = method_spec("ft")
    if subject in PRESETS:
        preset = method_spec(subject)
    if subject in WITHOUT_PRESET:
        preset = method_spec({"name": subject, **WITHOUT_PRESET[subject]})
    parts = []
    for part in (preset.tuning, *preset.plugins):
        settings = {**part.settings, **part.type.card.quick, **part.type.card.strong}
        # not every build of torch draws the same units
        if "dropout" in settings:
            settings["dropout"] = 0.0
        parts.append({"name": part.name, "settings": settings})
    return MethodSpec.model_validate({**preset.model_dump(), "tuning": parts[0], "plugins": parts[1:]})


def model_of(subject: str) -> str:
    """The model that a subject is trained on."""
    if subject in FAMILIES:
        return FAMILIES[subject]
    for part in spec_of(subject).types:
        if part.card.requires_head:
            return "tiny-bert"
    return "tiny-t5"


@functools.cache
def planned(folder: Path, model: str) -> dict[str, list[SequencePlan]]:
    """The sequences of each method on a model, by the method's name: planned together, as all read one stream."""
    names = []
    for subject in SUBJECTS:
        if model_of(subject) == model:
            names.append("ft" if subject in FAMILIES else subject)
    config = small_config(
        folder / model,
        model=model,
        methods=[spec_of(name).model_dump() for name in names],
        stream={"first": 3, "max_train": 16, "max_test": 4},
        training={"micro_batch": 4},
    )
    sequences: dict[str, list[SequencePlan]] = defaultdict(list)
    for sequence in plan(config):
        sequences[sequence.method.label].append(sequence)
    return dict(sequences)


def trained_state(sequence: SequencePlan, stream: Stream) -> State:
    """What two steps on each task leave, in float64; nothing where nothing is trained."""
    state = State({}, {}, {})
    kind = sequence.method.run_kind
    with exact_arithmetic(torch.float64):
        learner = Learner(sequence, stream, Parallel())
        learner.load_initial()
        for task_id in range(len(sequence.tasks)):
            if kind.is_trained(task_id, len(sequence.tasks)):
                state = train_task(learner, task_id, lambda event: None)
    return state


def norms(state: Any) -> list[float]:
    """The norms of the tensors of a nested state: of bases these alone are the same on all machines."""
    if isinstance(state, Tensor):
        return [float(state.detach().double().norm())]
    found = []
    if isinstance(state, Mapping):
        for name in sorted(state):
            found += norms(state[name])
    return found


def fingerprint(subject: str, folder: Path) -> list[float]:
    """The norm of all that a run over three tasks leaves, and two projections of it on random directions."""
    values = [np.zeros(1)]
    method = "ft" if subject in FAMILIES else subject
    for sequence in planned(folder, model_of(subject))[method]:
        state = trained_state(sequence, sequence.open_stream())
        for name in sorted(state.weights):
            values.append(state.weights[name].detach().double().flatten().numpy())
        # some tuning methods answer by what they keep beside what they train
        values.append(np.array(norms(state.method.get(f"0:{sequence.method.tuning.name}"))))
    vector = np.concatenate(values)
    # numpy's draws are the same everywhere
    directions = np.random.default_rng(0).standard_normal((2, vector.size))
    numbers = []
    for number in (np.linalg.norm(vector), *directions @ vector):
        numbers.append(float(f"{number:.12g}"))
    return numbers


def versions_of(subject: str) -> dict[str, int]:
    """The version of each part of a subject's method."""
    method = spec_of(subject)
    versions = {}
    for part in (method.tuning, *method.plugins):
        versions[part.name] = part.type.card.version
    return versions


def record_of(subject: str, folder: Path) -> Record:
    """A subject's entry in the file."""
    return {"versions": versions_of(subject), "fingerprint": fingerprint(subject, folder)}


def is_same(found: Sequence[float], recorded: Sequence[float]) -> bool:
    """Whether two fingerprints are those of one result; a projection may be near zero, so the norm is the measure."""
    for number, other in zip(found, recorded, strict=True):
        if abs(number - other) > TOLERANCE * max(1.0, recorded[0]):
            return False
    return True


def problem(subject: str, found: Record, recorded: Mapping[str, Any], checkpoint_format: int) -> str | None:
    """What has to be done about a subject, in one line; None where nothing has.

    `recorded` is the whole file, `checkpoint_format` the present format.
    """
    if checkpoint_format != recorded["checkpoint_format"]:
        return f"CHECKPOINT_FORMAT is {checkpoint_format} and was {recorded['checkpoint_format']}: {WRITE}"
    if subject not in recorded["subjects"]:
        return f"{subject} has no fingerprint: {WRITE}"
    before = recorded["subjects"][subject]
    for part, version in found["versions"].items():
        if version != before["versions"].get(part):
            return f"the version of {part} is {version} and was {before['versions'].get(part)}: {WRITE}"
    if is_same(found["fingerprint"], before["fingerprint"]):
        return None
    # with plain training, all methods have changed
    if is_plain(subject):
        return f"the result of {subject} changed: raise CHECKPOINT_FORMAT in orchestrator/planning/keys.py and {WRITE}"
    return f"the result of {subject} changed: raise its card's version and {WRITE}"


def is_plain(subject: str) -> bool:
    """Whether a subject is training without any method's doing: its code is shared by all of them."""
    return list(versions_of(subject)) == ["full"]


def read() -> dict[str, Any]:
    """What the file holds; nothing where there is none."""
    if not FILE.exists():
        return {"checkpoint_format": CHECKPOINT_FORMAT, "subjects": {}}
    content: dict[str, Any] = json.loads(FILE.read_text())
    return content


def write(folder: Path) -> list[str]:
    """Record every subject anew. Returns what stands against it: then nothing is written."""
    recorded = read()
    subjects = {}
    refusals = []
    for subject in SUBJECTS:
        found = record_of(subject, folder)
        before = recorded["subjects"].get(subject)
        # the digits that are rounding alone stay, so that a change shows the results that changed
        if before is not None and is_same(found["fingerprint"], before["fingerprint"]):
            found["fingerprint"] = before["fingerprint"]
        line = problem(subject, found, recorded, CHECKPOINT_FORMAT)
        # a number that changed under its old version is what the file is there to prevent
        if line and "result of" in line:
            refusals.append(line)
        subjects[subject] = found
    if not refusals:
        FILE.write_text(as_text({"checkpoint_format": CHECKPOINT_FORMAT, "subjects": subjects}))
    return refusals


def as_text(content: Mapping[str, Any]) -> str:
    """JSON with a line for each subject."""
    lines = []
    for subject, record in content["subjects"].items():
        lines.append(f"  {json.dumps(subject)}: {json.dumps(record)}")
    entries = ",\n".join(lines)
    return f'{{"checkpoint_format": {content["checkpoint_format"]}, "subjects": {{\n{entries}\n}}}}\n'


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.methods.fingerprints --write")
    with tempfile.TemporaryDirectory() as temporary:
        found_problems = write(Path(temporary))
    if found_problems:
        print(f"{FILE.name} is not written (to begin it anew, delete it first):", *found_problems, sep="\n")
        sys.exit(1)
