"""The experiment that faults happen to is one that the command takes, and the same however it is run."""

from __future__ import annotations

from pathlib import Path

from orchestrator.bench.chaos.experiment import SETTINGS, command_line, recipe
from orchestrator.config.loading import load_config
from orchestrator.planning.planner import plan


def test_the_command_takes_each_setting(tmp_path: Path) -> None:
    assert len(set(SETTINGS)) == 4
    for setting in SETTINGS:
        *_, run, file, option, out, as_json = command_line(tmp_path, setting)
        assert (run, option, out, as_json) == ("run", "--out", str(tmp_path / "out"), "--json")
        config = load_config(file, [], out)
        assert (config.scaling.workers, config.evaluation.placement) == setting
    for sequence in plan(config):
        assert len(sequence.tasks) == 3
    assert [method.label for method in config.methods] == ["ft+migu", "lora+replay"]


def test_a_setting_says_what_it_is() -> None:
    assert [str(setting) for setting in SETTINGS] == ["1-async", "1-inline", "2-async", "2-inline"]
    assert recipe(SETTINGS[2])["scaling"]["workers"] == 2
