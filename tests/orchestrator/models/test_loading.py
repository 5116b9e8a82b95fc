"""Loading: new weights follow the seed, saved weights are whole or refused, and every tokenizer can pad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from orchestrator.config.model import ModelConfig
from orchestrator.models.loading import load_module, load_tokenizer
from orchestrator.models.source import ModelSource, find_model
from tests.conftest import SMALL
from tests.orchestrator.models.architectures import save_model

SIZES = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}


def weights_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return dict(module.state_dict())


def load(folder: str, auto_class: Any, seed: int = 0, **arguments: Any) -> nn.Module:
    """A model from a folder."""
    config = ModelConfig(name=folder)
    return load_module(find_model(config), config, auto_class, seed, **arguments)


def test_a_built_in_model_is_drawn_from_the_seed_alone() -> None:
    config = ModelConfig(name="tiny-t5", overrides=SMALL["tiny-t5"])
    source = find_model(config)
    first = load_module(source, config, AutoModelForSeq2SeqLM, 3)
    torch.rand(5)
    again = load_module(source, config, AutoModelForSeq2SeqLM, 3)
    other = load_module(source, config, AutoModelForSeq2SeqLM, 4)
    assert first.training
    assert first.config.d_model == 32  # type: ignore[union-attr]
    assert first.config.vocab_size == len(load_tokenizer(source, config))  # type: ignore[union-attr]
    assert {weight.dtype for weight in weights_of(first).values()} == {torch.float32}
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"
    assert torch.equal(weights_of(first)[name], weights_of(again)[name])
    assert not torch.equal(weights_of(first)[name], weights_of(other)[name])


def test_a_folder_saved_in_half_precision_is_read_in_float32(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "LlamaForCausalLM", model_type="llama", **SIZES)
    saved = load_file(tmp_path / "model.safetensors")
    halves = {name: weight.bfloat16() for name, weight in saved.items()}
    save_file(halves, tmp_path / "model.safetensors", {"format": "pt"})
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**described, "dtype": "bfloat16"}))
    module = load(folder, AutoModelForCausalLM)
    assert module.training
    for name, weight in weights_of(module).items():
        assert weight.dtype == torch.float32
        if name in halves:
            assert torch.equal(weight, halves[name].float())


@pytest.mark.parametrize("lost", ["model.layers.0.mlp.up_proj.weight", "lm_head.weight"])
def test_a_weight_that_is_missing_is_refused_and_not_drawn(lost: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path, "LlamaForCausalLM", model_type="llama", **SIZES)
    saved = load_file(tmp_path / "model.safetensors")
    del saved[lost]
    save_file(saved, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"weight '{lost}' is not in its files"):
        load(folder, AutoModelForCausalLM)


def test_a_weight_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "LlamaForCausalLM", model_type="llama", **SIZES)
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**described, "intermediate_size": 40}))
    with pytest.raises(ValueError, match=r"proj.weight' is \[.*48.*\] in its file and \[.*40.*\] by its config.json"):
        load(folder, AutoModelForCausalLM)


def test_of_a_classifier_for_other_labels_all_but_its_last_layer_is_read(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "BertForSequenceClassification", model_type="bert", num_labels=3, **SIZES)
    saved = load_file(tmp_path / "model.safetensors")
    first = load(folder, AutoModelForSequenceClassification, seed=1, num_labels=5)
    second = load(folder, AutoModelForSequenceClassification, seed=2, num_labels=5)
    for name, weight in weights_of(first).items():
        if name in saved and not name.startswith("classifier"):
            assert torch.equal(weight, saved[name]), name
    head = weights_of(first)["classifier.weight"]
    assert head.shape == (5, 32)
    assert not torch.equal(head, weights_of(second)["classifier.weight"])


def test_of_a_backbone_the_head_is_new_but_nothing_of_itself(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "BertModel", model_type="bert", **SIZES)
    assert weights_of(load(folder, AutoModelForSequenceClassification, num_labels=5))["classifier.weight"].shape[0] == 5
    saved = load_file(tmp_path / "model.safetensors")
    del saved["pooler.dense.weight"]
    save_file(saved, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"weight 'bert\.pooler\.dense\.weight' is not in its files"):
        load(folder, AutoModelForSequenceClassification, num_labels=5)


def test_shapes_alone_need_no_weights(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "BertModel", model_type="bert", **SIZES)
    (tmp_path / "model.safetensors").unlink()
    config = ModelConfig(name=folder)
    source = ModelSource("encoder", False, "id", folder, None, has_values=False)
    module = load_module(source, config, AutoModelForSequenceClassification, 0, num_labels=5)
    assert {weight.device.type for weight in weights_of(module).values()} == {"meta"}
    assert weights_of(module)["classifier.weight"].shape == (5, 32)
    with pytest.raises(ValueError, match=r"transformers has no Seq2SeqLM for 'bert'$"):
        load_module(source, config, AutoModelForSeq2SeqLM, 0)


def test_a_tokenizer_without_padding_pads_with_its_end(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "LlamaForCausalLM", model_type="llama", **SIZES)
    described = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del described["pad_token"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(described))
    config = ModelConfig(name=folder)
    assert load_tokenizer(find_model(config), config).pad_token == "</s>"


def test_a_tokenizer_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "LlamaForCausalLM", model_type="llama", **SIZES)
    config = ModelConfig(name=folder)
    source = find_model(config)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"its tokenizer cannot be read: .") as caught:
        load_tokenizer(source, config)
    assert "\n" not in str(caught.value)
