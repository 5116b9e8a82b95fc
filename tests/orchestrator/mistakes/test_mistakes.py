"""Malformed inputs of every kind: each ends in one short line and exit code 2, leaves nothing and trains nothing."""

from __future__ import annotations

from pathlib import Path

from tests.orchestrator.mistakes import folders, options, schema, texts
from tests.orchestrator.mistakes.attempt import check, drawn
from tests.orchestrator.models.architectures import save_model


def test_settings_of_the_configuration(tmp_path: Path) -> None:
    check(drawn(schema.wrong_settings(), 350), tmp_path)


def test_settings_of_methods_sources_and_scenarios(tmp_path: Path) -> None:
    check(drawn(schema.wrong_parts(), 250), tmp_path)


def test_files_of_yaml(tmp_path: Path) -> None:
    check([*texts.yaml_files(), *drawn(texts.torn_files(), 120)], tmp_path)


def test_overrides(tmp_path: Path) -> None:
    check(drawn(texts.overrides(), 150), tmp_path)


def test_options_and_arguments(tmp_path: Path) -> None:
    check(options.wrong_options(), tmp_path)


def test_places_and_names(tmp_path: Path) -> None:
    check([*folders.output_folders(), *folders.experiment_names()], tmp_path)


def test_addresses(tmp_path: Path) -> None:
    check(folders.addresses(), tmp_path)


def test_data(tmp_path: Path) -> None:
    check([*folders.data_folders(), *folders.data_files()], tmp_path)


def test_models(tmp_path: Path) -> None:
    save_model(tmp_path / "saved", "T5ForConditionalGeneration")
    mistakes = [*folders.model_names(), *folders.model_folders(tmp_path / "saved")]
    (tmp_path / "tries").mkdir()
    check(mistakes, tmp_path / "tries")
