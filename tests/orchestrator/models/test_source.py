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
