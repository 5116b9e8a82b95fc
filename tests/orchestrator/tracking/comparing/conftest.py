"""A folder that was copied to its store, and copies of the folder to be damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.tracking.connection import Connection
from orchestrator.tracking.runs import Runs
from tests.orchestrator.tracking.journals import Copied, begun, ended, write


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Copied:
    """A store with all of a journal."""
    out = tmp_path_factory.mktemp("whole") / "out"
    out.mkdir()
    shutil.copy(template, out / "mlflow.db")
    write(out, [*begun(), *ended()])
    copied = Copied(out)
    copied.copy()
    return copied


@pytest.fixture
def damaged(whole: Copied, tmp_path: Path) -> Callable[..., Copied]:
    """Copies the folder, and gives the copy's runs to functions that damage them."""

    def damage(*damages: Callable[[Runs], None]) -> Copied:
        shutil.copytree(whole.out, tmp_path / "out")
        copied = Copied(tmp_path / "out")
        runs = Runs(Connection(copied.uri, "test", str(copied.out)))
        for one in damages:
            one(runs)
        return copied

    return damage
