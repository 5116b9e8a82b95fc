"""Malformed inputs of every kind: each ends in one short line and exit code 2, leaves nothing and trains nothing.

The fast tests take some of each kind of settings and texts; the slow ones all of it. `pytest -s` shows the figures.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.orchestrator.mistakes import folders, options, schema, texts
from tests.orchestrator.mistakes.attempt import Mistake, check, drawn, fault_of
from tests.orchestrator.models.architectures import save_model


@pytest.mark.parametrize("number", [100, pytest.param(350, marks=pytest.mark.slow)])
def test_settings_of_the_configuration(number: int, tmp_path: Path) -> None:
    check(drawn(schema.wrong_settings(), number), tmp_path)


@pytest.mark.parametrize("number", [60, pytest.param(250, marks=pytest.mark.slow)])
def test_settings_of_methods_sources_and_scenarios(number: int, tmp_path: Path) -> None:
    check(drawn(schema.wrong_parts(), number), tmp_path)


@pytest.mark.parametrize("number", [50, pytest.param(150, marks=pytest.mark.slow)])
def test_overrides(number: int, tmp_path: Path) -> None:
    check(drawn(texts.overrides(), number), tmp_path)


def test_files_of_yaml(tmp_path: Path) -> None:
    check([*texts.yaml_files(), *drawn(texts.torn_files(), 40)], tmp_path)


@pytest.mark.slow
def test_torn_files_of_yaml(tmp_path: Path) -> None:
    check(drawn(texts.torn_files(), 120), tmp_path)


@pytest.mark.slow
def test_options_and_arguments(tmp_path: Path) -> None:
    check(options.wrong_options(), tmp_path)


def test_places_names_and_addresses(tmp_path: Path) -> None:
    check([*folders.output_folders(), *folders.experiment_names(), *folders.addresses()], tmp_path)


@pytest.mark.slow
def test_data(tmp_path: Path) -> None:
    check([*folders.data_folders(), *folders.data_files()], tmp_path)


@pytest.mark.slow
def test_models(tmp_path: Path) -> None:
    save_model(tmp_path / "saved", "T5ForConditionalGeneration")
    mistakes = [*folders.model_names(), *folders.model_folders(tmp_path / "saved")]
    (tmp_path / "tries").mkdir()
    check(mistakes, tmp_path / "tries")


def test_the_check_can_fail(tmp_path: Path) -> None:
    """What is accepted, and what ends in another exit code, is found."""
    small = "streams=[{name: embedded, first: 1, max_train: 8, max_test: 4}]"
    assert "accepted" in fault_of(Mistake("none", ("run", "--set", small)), tmp_path)
    assert "exit code 2" in fault_of(Mistake("another code", ("zebra",), code=1), tmp_path)
