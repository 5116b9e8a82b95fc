"""An output folder with every kind of file, the ways in which a file is damaged, and the commands that read it."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator import cli
from orchestrator.config.experiment import RunConfig
from orchestrator.planning.experiment import Experiment
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.report.pruning import prune
from orchestrator.retention import note_trial
from orchestrator.training.sequence import run_sequence
from tests.conftest import small_config
from tests.orchestrator.search.searches import (
    freeze_and_save,
    open_evaluation,
    open_search,
    search_config,
    train_trials,
)

# Two tasks each: enough for a matrix, a difference between states, and something to forget
TWO = {"first": 2, "max_train": 16, "max_test": 6}
# What is not compared where a task was trained again
TIMES = ("seconds", "mlflow", "out", "report", "damaged_lines")


@dataclass(frozen=True)
class Damage:
    """What was done to a file: `kind` names it, `content` is what the file has now; None: it is gone."""

    file: str
    kind: str
    content: bytes | None


class Folder:
    """An output folder that is damaged and restored: an experiment, one that was pruned, and a search."""

    def __init__(self, home: Path) -> None:
        self.out = home / "out"
        self.sound = home / "sound"
        self.configs = {
            "small": small_config(
                self.out,
                methods=["ft", "ewc"],
                stream=TWO,
                checkpoints={"delta": True},
                evaluation={"during": {"every": 2, "examples": 2}},
            ),
            "pruned": small_config(self.out, name="pruned", stream=TWO, checkpoints={"keep": "none"}, seeds=[9]),
            "found": search_config(
                self.out,
                ["ft+migu"],
                evaluated=[{"name": "embedded", **TWO}],
                streams=[{"name": "embedded-tuning", "first": 2, "max_train": 16, "max_dev": 6}],
            ).model_copy(update={"name": "found"}),
        }
        # of each experiment its sequences as text, in which a key or an id is looked for
        self.sequences: dict[str, str] = {}
        for name, sequences in self._make():
            self.sequences[name] = " ".join(sequence.model_dump_json() for sequence in sequences)
        self.recipes: dict[str, Path] = {}
        for name, config in self.configs.items():
            self.recipes[name] = home / f"{name}.yaml"
            self.recipes[name].write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_none=True)))
        shutil.copytree(self.out, self.sound)
        self.expected = {name: self.report(name) for name in self.configs}

    def _make(self) -> Iterator[tuple[str, list[SequencePlan]]]:
        for name in ("small", "pruned"):
            yield name, run_all(self.configs[name])
        prune("pruned", str(self.out), keep="none")
        search, trial_store = open_search(self.configs["found"])
        sequences: list[SequencePlan] = []
        for trial in train_trials(trial_store):
            note_trial(str(self.out), "found", trial.sequences)
            sequences += trial.sequences
        chosen = freeze_and_save(search, trial_store)
        sequences += open_evaluation(search, chosen).sequences
        run_sequence(sequences[-1])
        yield "found", sequences

    def restore(self) -> None:
        """Make it what it was."""
        shutil.rmtree(self.out)
        shutil.copytree(self.sound, self.out)

    def report(self, name: str) -> dict[str, Any]:
        """What `report` says, of a folder that it must be able to read."""
        code, shown, said = call("report", name, "--out", self.out, "--json")
        assert code == 0, said
        result: dict[str, Any] = json.loads(shown.splitlines()[-1])
        return result

    def owner(self, file: str) -> str:
        """The experiment that a file belongs to; of what belongs to all, the first."""
        path = Path(file)
        for name, sequences in self.sequences.items():
            if file.startswith(f"experiments/{name}/"):
                return name
            if path.parts[0] in ("sequences", "scores", "checkpoints") and path.parts[1].partition(".")[0] in sequences:
                return name
        return "small"


def run_all(config: RunConfig) -> list[SequencePlan]:
    """Train and score an experiment in this process."""
    experiment = Experiment(config, tuple(plan(config)))
    experiment.save()
    for sequence in experiment.sequences:
        run_sequence(sequence)
    return list(experiment.sequences)


def call(*arguments: object) -> tuple[int, str, str]:
    """Run the console command in this process; gives (exit code, stdout, stderr)."""
    shown, said = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["orchestrator", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as left:
            cli.main()
    finally:
        sys.argv = before
    return int(left.value.code or 0), shown.getvalue(), said.getvalue()


def damages(folder: Path, files: Sequence[str], count: int, seed: int) -> Iterator[Damage]:
    """So many damages of files below a folder, the kinds and the files in turn, the places by chance."""
    rng = random.Random(seed)
    by_kind: dict[str, list[str]] = {}
    for file in files:
        by_kind.setdefault(kind_of(file), []).append(file)
    kinds = sorted(by_kind)
    for number in range(count):
        file = rng.choice(by_kind[kinds[number % len(kinds)]])
        content = (folder / file).read_bytes()
        kind = WAYS[(number // len(kinds) + number) % len(WAYS)]
        yield Damage(file, kind, damaged(content, kind, rng))


WAYS = ("flip", "cut", "empty", "nul tail", "lost line", "not utf-8", "null", "torn", "gone", "flips")


def damaged(content: bytes, kind: str, rng: random.Random) -> bytes | None:
    """A file's content after a damage of that kind."""
    at = rng.randrange(max(len(content), 1))
    if kind == "gone":
        return None
    if kind in ("flip", "flips"):
        changed = bytearray(content or b"\0")
        for _ in range(1 if kind == "flip" else 3):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if kind == "lost line":
        lines = content.splitlines(keepends=True)
        number = rng.randrange(max(len(lines), 1))
        return b"".join(lines[:number] + lines[number + 1 :])
    simple = {
        "cut": content[:at],
        "empty": b"",
        "nul tail": content[:at] + b"\0" * (len(content) - at + 1),
        "not utf-8": content[:at] + b"\xff\xfe\xe9" + content[at:],
        "null": b"null\n",
        "torn": content[:at] + content[: at // 2],
    }
    return simple[kind]


def kind_of(file: str) -> str:
    """What kind of file it is: its place and name, without keys and ids."""
    path = Path(file)
    if path.parts[0] in ("scores", "sequences", "test_access", "locks", "ray", "logs"):
        return path.parts[0] + "".join(path.suffixes[:1])
    if path.parts[0] == "checkpoints":
        return f"checkpoints/{path.name}"
    return path.name
