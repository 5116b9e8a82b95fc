"""`orchestrator check-method` on a plug-in outside the project: the one that README shows, as it is written there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.planning.planner import plan
from orchestrator.training.sequence import run_sequence
from tests.conftest import small_config

ROOT = Path(__file__).parent.parent.parent.parent
(PLUGIN,) = re.findall(r"`my_plugin.py`:\n\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The console command, given in a folder that is not the project's."""
    code = f"import sys; sys.path[0] = {str(ROOT)!r}\nfrom orchestrator.cli import main; main()"
    whole = [sys.executable, "-c", code, "check-method", *arguments]
    return subprocess.run(whole, cwd=folder, capture_output=True, text=True)


def test_it_is_short() -> None:
    assert len(PLUGIN.splitlines()) < 40


@pytest.mark.slow
def test_the_plugin_of_the_readme_keeps_the_contract(tmp_path: Path) -> None:
    (tmp_path / "my_plugin.py").write_text(PLUGIN)
    done = command(tmp_path, "my_plugin.Shrink", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["checks"]
    assert {check["outcome"] for check in found} == {"passed"}


@pytest.mark.slow
def test_without_its_state_the_check_says_what_differs(tmp_path: Path) -> None:
    forgetful = PLUGIN.replace("def state_dict", "def forgotten").replace("if task_id == 0:", "if True:")
    (tmp_path / "my_plugin.py").write_text(
        forgetful.replace("strength: float = Field(0.01", "strength: float = Field(0.5")
    )
    done = command(tmp_path, "my_plugin:Shrink", "--json")
    assert done.returncode == 0, "anchored anew at each task it needs no state"
    stateless = PLUGIN.replace("return dict(self.start)", "return {}")
    (tmp_path / "my_plugin.py").write_text(stateless)
    done = command(tmp_path, "my_plugin:Shrink", "--json", "--debug")
    assert done.returncode == 1
    (resumes,) = (c for c in json.loads(done.stdout)["checks"] if c["check"] == "resumes")
    assert resumes["outcome"] == "failed"
    assert "my_plugin.py:" in resumes["reason"], "the line of the user's own code"


@pytest.mark.parametrize("name", ["my_plugin.Shrnk", "my_plgin.Shrink", "nothing"])
def test_a_path_that_leads_nowhere_is_bad_input(name: str, tmp_path: Path) -> None:
    (tmp_path / "my_plugin.py").write_text(PLUGIN)
    done = command(tmp_path, name)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_it_runs_in_an_experiment_by_its_dotted_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    methods = ["ft", {"name": "shrink", "plugins": [{"name": "my_plugin.Shrink", "strength": 0.05}]}]
    plain, shrunk = plan(small_config(tmp_path / "out", methods=methods, stream={"first": 2}))
    for sequence in (plain, shrunk):
        assert run_sequence(sequence).status == "finished"
    assert plain.keys[0] == shrunk.keys[0]
    assert plain.keys[1] != shrunk.keys[1]
