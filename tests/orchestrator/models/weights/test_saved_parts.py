"""A model read in parts has the values that it has when it is read at once; and what cannot be read so is read at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.config.model import ModelConfig
from orchestrator.models.families import load_family
from orchestrator.models.family import Family
from orchestrator.models.source import find_model
from orchestrator.models.weights.saved_parts import SavedParts, saved_parts_of
from tests.conftest import SMALL
from tests.gloo import in_workers


def save(name: str, folder: Path, **options: Any) -> ModelConfig:
    """A built-in model of width 32 as a folder."""
    config = ModelConfig(name=name, overrides=SMALL[name], max_source=48, max_target=8)
    family = load_family(find_model(config), config, ["a", "b"], seed=3)
    module: Any = family.module
    if name == "tiny-bert":
        module = module.base_model
    module.save_pretrained(folder, **options)
    family.tokenizer.save_pretrained(folder)
    return config.model_copy(update={"name": str(folder), "overrides": {}})


def families(config: ModelConfig) -> tuple[Family, Family, SavedParts]:
    """The model read at once, the model with placeholders, and what is to be read of it."""
    source = find_model(config)
    in_parts = replace(source, in_parts=True)
    family = load_family(in_parts, config, ["a", "b"], seed=3)
    return load_family(source, config, ["a", "b"], seed=3), family, saved_parts_of(family.module)


@pytest.mark.parametrize("name", ["tiny-t5", "tiny-llama"])
@pytest.mark.parametrize("options", [{}, {"max_shard_size": "60KB"}], ids=["one-file", "several-files"])
def test_read_in_parts_it_is_the_same(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    at_once, later, saved = families(save(name, tmp_path, **options))
    saved.note_names(later.module)
    saved.fill(later.module)
    expected, found = at_once.module.state_dict(), later.module.state_dict()
    assert list(expected) == list(found)
    for key, value in expected.items():
        assert found[key].dtype == torch.float32
        assert torch.equal(found[key], value), key
    for key, buffer in at_once.module.named_buffers():
        assert torch.equal(later.module.get_buffer(key), buffer), key
    generated: Any = later.module
    assert generated.generation_config.to_dict() == at_once.module.generation_config.to_dict()  # type: ignore[union-attr, operator]
    assert later.module.training


def test_values_in_half_precision_are_read_as_float32(tmp_path: Path) -> None:
    config = save("tiny-llama", tmp_path)
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).save_pretrained(tmp_path)
    at_once, later, saved = families(config)
    saved.note_names(later.module)
    saved.fill(later.module)
    for key, value in at_once.module.state_dict().items():
        assert torch.equal(later.module.state_dict()[key], value), key


def test_a_tuning_method_may_prepare_the_model_before_it_is_read(tmp_path: Path) -> None:
    """LoRA gives the base other names, and its own values are there before the base's."""
    from methods.adapters.lora import LoraSettings, inject_lora

    at_once, later, saved = families(save("tiny-t5", tmp_path))
    prepared = []
    for family in (at_once, later):
        torch.manual_seed(5)
        prepared.append(inject_lora(family.module, LoraSettings()))
    saved.note_names(prepared[1])
    saved.fill(prepared[1])
    found = prepared[1].state_dict()
    for key, value in prepared[0].state_dict().items():
        assert torch.equal(found[key], value), key
    assert any(".lora_A." in key for key in found)


def test_a_head_that_no_file_has_is_drawn_and_the_model_read_at_once(tmp_path: Path) -> None:
    at_once, later, saved = families(save("tiny-bert", tmp_path))
    assert saved.places == {}
    for key, value in at_once.module.state_dict().items():
        assert torch.equal(later.module.state_dict()[key], value), key


def test_each_worker_reads_its_rows(tmp_path: Path) -> None:
    config = save("tiny-llama", tmp_path, max_shard_size="60KB")

    def check(rank: int) -> None:
        from torch.distributed.fsdp import fully_shard

        from methods.shared.shards import whole

        at_once, later, saved = families(config)
        saved.note_names(later.module)
        fully_shard(later.module)
        saved.fill(later.module)
        for key, parameter in later.module.named_parameters():
            assert torch.equal(whole(parameter), at_once.module.get_parameter(key)), key

    in_workers(check, 3, tmp_path)
