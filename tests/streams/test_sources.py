"""Finding a source: by its name, by an installed package's entry point, by the path of its class."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streams import SOURCES, Limits, find_source, source_names

ROOT = Path(__file__).parents[2]
OWN = """
from streams import Example, Source, Stream, Task


class Lines(Source):
    lines: tuple[str, ...]

    def stream(self, name, limits):
        def load(split):
            return [Example(line, "a") for line in self.lines]

        return Stream(name, (Task("lines", "", "", ("a",), "own", load, limits),))


class NoSource:
    pass
"""


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's installed package with a source, a class that is none, and two entry points."""
    (tmp_path / "own_lines.py").write_text(OWN)
    (tmp_path / "own_fault.py").write_text("missing\n")
    info = tmp_path / "own_lines-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-lines\nVersion: 1.0\n")
    points = "lines = own_lines:Lines\nbroken = own_lines:Missing\nwrong = own_lines:NoSource\n"
    (info / "entry_points.txt").write_text(f"[continual_orchestrator.streams]\n{points}")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "own_lines"
    sys.modules.pop("own_lines", None)


@pytest.mark.parametrize("name", ["lines", "own_lines.Lines", "own_lines:Lines"])
def test_a_source_of_ones_own_is_found(name: str, own_package: str) -> None:
    source = find_source(name).model_validate({"lines": [f"line {i}" for i in range(20)]})
    (task,) = source.stream("mine", Limits()).tasks
    assert len(task.read("train")) + len(task.read("dev")) == 20


def test_installed_sources_are_named_and_found_by_name_alone(own_package: str) -> None:
    assert source_names() == [*SOURCES, "broken", "lines", "wrong"]
    assert find_source("folder") is SOURCES["folder"]
    assert "own_lines" not in sys.modules, "naming a source imports none"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("line", "unknown source 'line'. Did you mean 'lines'?"),
        ("broken", "source 'broken' of an installed package cannot be imported"),
        ("wrong", "source 'wrong' of an installed package is no class derived from"),
        ("own_lines.NoSource", "source 'own_lines.NoSource' is no class derived from"),
        ("own_lines.Missing", "source 'own_lines.Missing' cannot be imported"),
        ("own_fault.Lines", "source 'own_fault.Lines' cannot be imported: NameError: name 'missing' is not defined"),
        ("nowhere.Lines", "source 'nowhere.Lines' cannot be imported: No module named 'nowhere'"),
    ],
)
def test_what_is_no_source_is_refused(name: str, message: str, own_package: str) -> None:
    with pytest.raises(ValueError) as caught:
        find_source(name)
    assert message in str(caught.value)


def test_a_source_in_the_present_folder_is_found_by_a_console_script(tmp_path: Path) -> None:
    """Whose path, unlike that of `python -m`, begins with the script's own folder."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "own_lines.py").write_text(OWN)
    script = tmp_path / "script.py"
    script.write_text("from streams import find_source\nprint(find_source('own_lines.Lines').__name__)\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path / "here", env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "Lines", done.stderr
