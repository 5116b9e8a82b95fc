"""Models come from folders as they come from the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orchestrator.config.model import ModelConfig
from orchestrator.models.families import load_family
from orchestrator.models.source import find_model
from orchestrator.training.learner import Learner
from tests.conftest import FAMILIES


@pytest.mark.parametrize("model", FAMILIES)
def test_a_model_reads_from_a_local_folder(model: str, tmp_path: Path, learner_of: Callable[..., Learner]) -> None:
    """The folder that `save_pretrained` writes is what a hub id downloads."""
    learner = learner_of(model=model)
    learner.family.module.save_pretrained(tmp_path / "model")
    learner.family.tokenizer.save_pretrained(tmp_path / "model")
    config = ModelConfig(name=str(tmp_path / "model"), max_source=48)
    source = find_model(config)
    assert source.identity.startswith("folder:")
    family = load_family(source, config, learner.family.labels, seed=7)
    ours = dict(learner.family.module.named_parameters())
    for name, p in family.module.named_parameters():
        assert torch.equal(p, ours[name]), name
    task = learner.stream.tasks[0]
    examples = task.read("test")
    assert family.features(task, examples) == learner.family.features(task, examples)
    weights = next((tmp_path / "model").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    (tmp_path / "copy").mkdir()
    for file in (tmp_path / "model").iterdir():
        (tmp_path / "copy" / file.name).write_bytes(content if file == weights else file.read_bytes())
    assert find_model(ModelConfig(name=str(tmp_path / "copy"))).identity != source.identity


@pytest.mark.parametrize("name", ["", "a b", "x" * 300, "a\0b", "http:x", "[red]", "é/é"])
def test_what_is_no_name_of_a_model(name: str) -> None:
    with pytest.raises(ValueError, match="is no built-in model, no folder and no hub id"):
        find_model(ModelConfig(name=name))


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ValueError, match="is a file; give its folder"):
        find_model(ModelConfig(name=str(tmp_path / "config.json")))


@pytest.mark.parametrize("overrides", [{"num_layers": -1}, {"num_heads": 0}, {"d_model": 1.5}, {"num_layers": 100_000}])
def test_sizes_that_no_model_has(overrides: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"model\.overrides: .*; allowed: whole numbers from 1 to"):
        find_model(ModelConfig(overrides=overrides))


@pytest.mark.parametrize(
    "content", ["", "null", "[]", "7", '{"model_type": 7}', '{"model_type": "zebra"}', "[" * 9_000]
)
def test_a_configuration_that_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"no readable config\.json of a model that transformers has"):
        find_model(ModelConfig(name=str(tmp_path)))
