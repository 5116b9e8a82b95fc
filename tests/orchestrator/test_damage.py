"""Damage of every kind of file of an output folder: no traceback, no number that is another, and all of it mended."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.cluster.resources import Resources
from orchestrator.evaluation.curves.stability import STABILITY
from orchestrator.training.sequence import run_sequence
from tests.orchestrator.damages import Damage, Folder, call, damages
from tests.orchestrator.planning.test_recovery import assert_nothing_wrong
from tests.orchestrator.search.searches import train_trials

# Files that are written anew by each command, hold nothing, or are no part of what is known
OUTPUTS = (".csv", ".png", ".lock", ".log")


class NoSync:
    """Stands for the copy in MLflow, which has its own tests."""

    def follow(self, ids: object) -> None:
        """Take what is to be followed."""

    def expect_news(self) -> None:
        """Take that there will be something."""


@pytest.fixture(scope="module", autouse=True)
def _in_this_process() -> Iterator[None]:
    """What a cluster would train is trained here, nothing is copied to MLflow, and no picture is drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.store.environment.git_commit", lambda: None)
        patch.delenv("RAY_ADDRESS", raising=False)
        for module in ("orchestrator.run", "orchestrator.search.protocol"):
            patch.setattr(f"{module}.sync_of", lambda *_: NoSync())
            patch.setattr(f"{module}.close", lambda *_: None)
        patch.setattr("orchestrator.report.csv_files.write_points", lambda *_: None)
        patch.setattr("orchestrator.search.protocol.draw", lambda *_: [])
        patch.setattr("orchestrator.run._train", _train)
        resources = contextlib.nullcontext(Resources(2.0, 0.0))
        patch.setattr("orchestrator.search.protocol.cluster", lambda: resources)
        patch.setattr("orchestrator.search.ray_tune.run_trials", lambda trial_store, *_: train_trials(trial_store))
        yield


def _train(incomplete: Any, experiment: Any, watcher: Any, retention: Any) -> list[str]:
    for sequence in incomplete:
        run_sequence(sequence)
    return []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, _in_this_process: None) -> Folder:
    return Folder(tmp_path_factory.mktemp("d"))


def eligible(folder: Folder) -> list[str]:
    files = []
    for path in sorted(folder.sound.rglob("*")):
        if path.is_file() and path.suffix not in OUTPUTS:
            files.append(str(path.relative_to(folder.sound)))
    return files


def outcome(code: int, said: str, folder: Folder, what: object) -> str:
    """What became of a command: right; not finished, as its table says; or refused, in one line that says what is wrong."""
    assert "Traceback" not in said, (what, said)
    lines = [line for line in said.splitlines() if line.startswith(("error:", "failed:"))]
    if not lines:
        assert code in (0, 1), (what, code)
        return ("right", "not finished")[code]
    assert code == 2 and len(lines) == 1, (what, said)
    assert len(lines[0].replace(str(folder.out), "out")) <= 300, (what, lines)
    return "refused"


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    """A report without times, which are others where something was trained again, and without where it is."""
    kept = json.loads(json.dumps(result["sequences"]))
    for sequence in kept:
        for name in ("seconds", "seconds_of_looks", "status", "runs_finished", "reason", "failure"):
            sequence.pop(name, None)
    found: dict[str, Any] = {"sequences": kept}
    if "search" in result:
        methods = {label: method["tuning_score"] for label, method in result["search"]["methods"].items()}
        found["search"] = {"methods": methods, "ranking": result["search"]["ranking"]}
    return found


def partial(result: dict[str, Any]) -> dict[str, Any]:
    """The numbers that a report of something unfinished must not give otherwise: sums over tasks are less by then."""
    found = numbers(result)
    if any(sequence["status"] != "finished" for sequence in result["sequences"]):
        found.get("search", {}).pop("ranking", None)
    for sequence, whole in zip(found["sequences"], result["sequences"], strict=True):
        if whole["status"] != "finished":
            for name in ("steps", "tokens", "flops", "test_sizes", "dropped_rows", *STABILITY):
                sequence.pop(name, None)
    return found


def apply(folder: Folder, damage: Damage) -> None:
    file = folder.out / damage.file
    if damage.content is None:
        file.unlink()
    else:
        file.write_bytes(damage.content)


def check(folder: Folder, damage: Damage, number: int) -> Iterator[str]:
    """Read a damaged folder with the commands, mend it, and compare; gives what became of each command."""
    folder.restore()
    apply(folder, damage)
    name = folder.owner(damage.file)
    what = (name, damage.file, damage.kind, number)
    expected = folder.expected[name]
    code, shown, said = call("report", name, "--out", folder.out, "--json")
    yield "report: " + outcome(code, said, folder, what)
    if code == 0:
        result = json.loads(shown.splitlines()[-1])
        compared = partial(result)
        status = {sequence["id"]: sequence["status"] for sequence in result["sequences"]}
        for sequence, whole in zip(compared["sequences"], numbers(expected)["sequences"], strict=True):
            # what is known of them depends on what else is: a list of those that there are
            points = sequence.pop("points", None) or []
            assert all(point in (whole.get("points") or []) for point in points), what
            assert status[sequence["id"]] != "finished" or points == (whole.get("points") or []), what
            assert_nothing_wrong(sequence, {key: whole[key] for key in sequence}, str(what))
        if "search" in compared:
            whole = numbers(expected)["search"]
            assert_nothing_wrong(compared["search"], {key: whole[key] for key in compared["search"]}, str(what))
    task = expected["sequences"][0]["tasks"][0]
    others = [("predictions", name, "--task", task), ("prune", name, "--dry-run"), ("evaluate", name)]
    command = others[number % len(others)]
    code, _, said = call(*command, "--out", folder.out)
    yield f"{command[0]}: " + outcome(code, said, folder, (what, command))
    repairs = number % 2 == 0
    code, shown, said = call("verify", name, "--out", folder.out, *(["--repair"] if repairs else []), "--json")
    yield "verify: " + outcome_of_verify(code, shown, said, what)
    again = "tune" if name == "found" else "run"
    code, _, said = call(again, folder.recipes[name], "--out", folder.out)
    yield f"{again}: " + outcome(code, said, folder, what)
    if code == 0:
        assert numbers(folder.report(name)) == numbers(expected), what
        if repairs:
            code, shown, said = call("verify", name, "--out", folder.out, "--json")
            assert code == 0, (what, shown)


def outcome_of_verify(code: int, shown: str, said: str, what: object) -> str:
    assert "Traceback" not in said and code in (0, 1), (what, said)
    found = json.loads(shown.splitlines()[-1])["damaged"]
    return f"{min(len(found), 1)} found"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_damage_of_any_file(folder: Folder) -> None:
    """DAMAGES=400 tries so many; the kinds of files and of damage come in turn, the files and places by chance."""
    became: Counter[str] = Counter()
    count = int(os.environ.get("DAMAGES", "40"))
    seed = int(os.environ.get("DAMAGE_SEED", "3"))
    for number, damage in enumerate(damages(folder.sound, eligible(folder), count, seed)):
        became.update(check(folder, damage, number))
    print()
    for line, times in sorted(became.items()):
        print(f"{times:5d}  {line}")
