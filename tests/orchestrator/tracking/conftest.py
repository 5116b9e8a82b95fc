"""The MLflow store that the tests of this folder share."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import pytest

from tests.orchestrator.tracking.journals import Copied


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One sqlite store for all tests of a process: its schema takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store, to be copied by tests that need one of their own."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def copied(tmp_path: Path, template: Path) -> Copied:
    """A folder with an empty store of its own."""
    shutil.copy(template, tmp_path / "mlflow.db")
    return Copied(tmp_path)
