"""Recipes, files that extend each other, and `--set`."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config.loading import load_config, recipe_names
from tests.orchestrator.config.refusal import refused


def test_the_default_recipe() -> None:
    config = load_config()
    assert config.name == "embedded"
    assert [m.label for m in config.methods] == ["ft", "ft+migu", "ft+random"]
    assert Path(config.out).is_absolute()


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_reads(name: str) -> None:
    assert load_config(name).name == name


def test_the_published_recipes() -> None:
    first, fifth, sixth = (load_config(f"order{i}-t5") for i in (1, 5, 6))
    assert first.model.name == "t5-large"
    assert (first.model.max_source, first.model.max_target) == (512, 50)
    assert (first.training.global_batch, first.training.lr, first.training.weight_decay) == (64, 1e-4, 0.01)
    assert first.seeds == (42, 1024, 2048)
    rates = {m.label: first.training_for(m).lr for m in first.methods}
    adapters = [f"{name}{rest}" for name in ("lora", "inclora", "olora", "lorareplay") for rest in ("", "+migu")]
    assert rates == {**dict.fromkeys(("ft", "ft+migu", "ft+random"), 1e-4), **dict.fromkeys(adapters, 1e-3)}
    ratios = {m.label: m.plugins[-1].settings["ratio"] for m in first.methods if m.label.endswith("migu")}
    published = {"ft": 0.7, "lora": 0.7, "inclora": 0.7, "olora": 0.05, "lorareplay": 0.4}
    assert ratios == {f"{name}+migu": pytest.approx(1 - masked) for name, masked in published.items()}
    assert fifth.training.epochs_per_task == {"WiC": 2}
    assert sixth.training.epochs_per_task == {"MNLI": 2}


def test_set_changes_settings() -> None:
    config = load_config(
        None, ["training.lr=1e-4", "streams.max_train=9", "streams.0.max_test=8", "seeds=[1,2]", "methods=[lora]"]
    )
    assert config.training.lr == 1e-4
    assert (config.streams[0].max_train, config.streams[0].max_test) == (9, 8)
    assert config.seeds == (1, 2)
    assert [m.label for m in config.methods] == ["lora"]
    other = load_config(None, ["methods=[{name: half, tuning: full, plugins: [{name: migu, ratio: 0.5}]}]"])
    assert other.methods[0].plugins[0].settings["ratio"] == 0.5
    assert other.methods[0].label == "half"


def test_a_file_extends_a_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: embedded\nmethods: [{preset: ft, training: {lr: 1.0e-2}}]\ntraining: {epochs: 2}\n")
    config = load_config(str(file))
    assert config.name == "mine"
    assert config.training.epochs == 2
    assert config.training.global_batch == 32
    assert config.training_for(config.methods[0]).lr == 1e-2


def test_a_budget_takes_the_place_of_another(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("extends: embedded\ntraining: {budget: {steps: 5}}")
    (tmp_path / "own.yaml").write_text(f"extends: {tmp_path / 'base.yaml'}\ntraining: {{budget: {{tokens: 1e6}}}}")
    budget = load_config(str(tmp_path / "own.yaml")).training.budget
    assert budget
    assert (budget.steps, budget.tokens) == (None, 1_000_000)


def test_wrong_files(tmp_path: Path) -> None:
    assert "Did you mean 'embedded'?" in refused(source="embeded")
    assert "no such file" in refused(source=str(tmp_path / "none.yaml"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("model:\n  name: [tiny-t5\ntraining: {}\n")
    assert f"{broken}, line 3: malformed YAML" in refused(source=str(broken))
    broken.write_text("- a\n- b\n")
    assert "expected a mapping of settings, found list" in refused(source=str(broken))
    broken.write_text(f"extends: {broken}\n")
    assert "extends itself" in refused(source=str(broken))


def test_a_key_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text("extends: embedded\ntraining:\n  lr: 1.0e-3\n  epochs: 2\n  'lr': 1.0e-4\n")
    assert "twice.yaml', line 5: malformed YAML: the key 'lr' is given twice" in refused(source=str(file))
    file.write_text("extends: embedded\ntraining: {epochs: 2}\nseeds: [1]\ntraining: {lr: 0.1}\n")
    assert "line 4: malformed YAML: the key 'training' is given twice" in refused(source=str(file))
    assert "the key 'epochs' is given twice" in refused("training={epochs: 1, epochs: 2}")


def test_an_entry_that_is_merged_in_may_be_replaced(tmp_path: Path) -> None:
    file = tmp_path / "merged.yaml"
    file.write_text(
        "extends: embedded\nmethods:\n"
        "  - &half {name: half, tuning: full, training: &rate {lr: 0.5, epochs: 3}}\n"
        "  - {<<: *half, name: low, training: &low {<<: *rate, lr: 0.1}}\n"
        "  - {<<: *half, name: last, training: {<<: *low, epochs: 4}}\n"
    )
    config = load_config(str(file))
    trainings = [config.training_for(method) for method in config.methods]
    assert [(training.lr, training.epochs) for training in trainings] == [(0.5, 3), (0.1, 3), (0.1, 4)]


def test_a_space_needs_a_search() -> None:
    method = "methods=[{preset: ft+migu, space: {migu.ratio: [0.1, 0.3]}}]"
    assert "methods: 'ft+migu' has a `space`, which a search alone tries" in refused(method)
    assert load_config("embedded-quick", [method]).methods[0].space


def test_a_job_keeps_nothing_in_its_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ray deletes the copy of the working directory in which a submitted job runs."""
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"runtime_env": {}}')
    line = "out: 'runs' would lie in the job's temporary copy of the working directory; give a full path that every node sees"
    assert refused().startswith(line)
    assert refused("out=../elsewhere").startswith("out: '../elsewhere' would lie in the job's temporary copy")
    assert load_config(out=str(tmp_path)).out == str(tmp_path)
    assert load_config(None, ["out=~/runs"]).out == str(Path.home() / "runs")
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR")
    assert load_config().out == str(Path("runs").resolve())
