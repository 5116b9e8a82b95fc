"""What cannot work on a model is refused in one line before anything starts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from orchestrator.config.experiment import RunConfig
from orchestrator.config.model import ModelConfig
from orchestrator.errors import UserError
from orchestrator.models.families import load_family
from orchestrator.models.source import find_model
from orchestrator.planning.planner import plan
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from tests.conftest import small_config
from tests.orchestrator.models.architectures import save_model


def refusal(config: Callable[[], RunConfig]) -> str:
    """The one line by which a configuration is refused."""
    with pytest.raises(UserError) as refused:
        plan(config())
    line = str(refused.value)
    assert "\n" not in line
    return line


def on(model: str, out: Path, **changes: Any) -> RunConfig:
    """Fine-tuning of a model in a folder on one small task."""
    return RunConfig.model_validate(
        {
            "name": "door",
            "model": {"name": model, "max_source": 40, "max_target": 6, **changes.pop("reading", {})},
            "streams": [{"name": "embedded", "first": 1, "max_train": 8, "max_test": 4}],
            "methods": changes.pop("methods", ["ft"]),
            "out": str(out),
        }
    )


def test_a_folder_without_weights_or_tokenizer(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", "GPT2LMHeadModel")
    (tmp_path / "model" / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    assert "no tokenizer" in refusal(lambda: on(model, tmp_path))
    (tmp_path / "tokenizer.json").rename(tmp_path / "model" / "tokenizer.json")
    (tmp_path / "model" / "model.safetensors").unlink()
    assert "no weights" in refusal(lambda: on(model, tmp_path))


def test_a_tokenizer_that_is_larger_than_the_embedding(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", "GPT2LMHeadModel", vocab_size=200)
    assert "more than the 200 of its embedding" in refusal(lambda: on(model, tmp_path))


@pytest.mark.parametrize(
    ("architecture", "fits", "too_long"),
    # GPT-2 reads 6 tokens of the answer in its 64 positions; RoBERTa's first two of 66 belong to padding (index 0 here: one)
    [
        ("GPT2LMHeadModel", 58, 59),
        ("RobertaModel", 65, 66),
        ("ElectraModel", 66, 67),
        ("BartForConditionalGeneration", 64, 65),
    ],
)
def test_texts_that_are_longer_than_the_positions(architecture: str, fits: int, too_long: int, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", architecture)
    plan(on(model, tmp_path, reading={"max_source": fits}))
    assert f"model.max_source: {too_long}" in refusal(lambda: on(model, tmp_path, reading={"max_source": too_long}))


def test_an_override_that_the_configuration_has_not(tmp_path: Path) -> None:
    line = refusal(lambda: small_config(tmp_path, overrides={"d_modle": 16}))
    assert "model.overrides" in line and "d_model" in line


def test_targets_that_the_model_has_not(tmp_path: Path) -> None:
    for tuning in ("lora", "inclora", "moelora", "osf"):
        line = refusal(
            lambda tuning=tuning: small_config(tmp_path, methods=[{"tuning": {"name": tuning, "targets": ["qq"]}}])
        )
        assert tuning in line and "qq" in line


def test_targets_are_the_users_or_found(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", "DistilBertModel")
    for targets, expected in ((None, {"q_lin", "v_lin"}), (["out_lin"], {"out_lin"})):
        (sequence,) = plan(on(model, tmp_path, methods=[{"tuning": {"name": "lora", "targets": targets}}]))
        learner = Learner(sequence, sequence.open_stream(), Parallel())
        learner.load_initial()
        adapted = set()
        for name, _ in learner.family.module.named_parameters():
            if "lora_A" in name:
                adapted.add(name.split(".lora_A")[0].rpartition(".")[2])
        assert adapted == expected


def test_a_backbone_is_what_its_architecture_can_do(tmp_path: Path) -> None:
    """GPT-2's base is a decoder: its head is its embedding. A base whose head is missing is refused; BERT's is an encoder."""
    gpt2 = save_model(tmp_path / "gpt2", "GPT2Model", model_type="gpt2", n_embd=32, n_layer=1, n_head=4, n_positions=64)
    assert find_model(ModelConfig(name=gpt2)).kind == "decoder"
    plan(on(gpt2, tmp_path))
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4}
    llama = save_model(tmp_path / "llama", "LlamaModel", model_type="llama", intermediate_size=48, **sizes)
    assert "without the head that writes" in refusal(lambda: on(llama, tmp_path))
    electra = save_model(tmp_path / "electra", "ElectraModel")
    assert find_model(ModelConfig(name=electra)).kind == "encoder"


def test_a_head_for_other_labels_is_drawn_anew_and_nothing_else(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    for labels in (7, 3):
        name = f"bert{labels}"
        save_model(tmp_path / name, "BertForSequenceClassification", model_type="bert", num_labels=labels, **sizes)
    heads = []
    for name in ("bert7", "bert3"):
        config = ModelConfig(name=str(tmp_path / name), max_source=40)
        family = load_family(find_model(config), config, ("a", "b", "c"), seed=1)
        heads.append(family.module.classifier.weight)
        saved = load_file(tmp_path / name / "model.safetensors")
        key = "bert.encoder.layer.0.attention.self.query.weight"
        assert torch.equal(dict(family.module.named_parameters())[key], saved[key])
    assert torch.equal(heads[0], heads[1])
    # a layer of the backbone that is missing would be a random draw
    file = tmp_path / "bert3" / "model.safetensors"
    weights = load_file(file)
    del weights[key]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"query\.weight' is not in its files"):
        load_family(find_model(config), config, ("a", "b", "c"), seed=1)


@pytest.mark.parametrize("method", ["ft+migu", "gpm"])
def test_activations_of_layers_that_read_more_than_the_tokens(method: str, tmp_path: Path) -> None:
    """DeBERTa's projections read relative positions too."""
    model = save_model(
        tmp_path / "model", "DebertaV2Model", relative_attention=True, share_att_key=True, pos_att_type=["p2c", "c2p"]
    )
    plan(on(model, tmp_path))
    assert "do not fit the mask" in refusal(lambda: on(model, tmp_path, methods=[method]))


def test_projection_on_gpt2(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", "GPT2LMHeadModel")
    assert "transposed" in refusal(lambda: on(model, tmp_path, methods=["gpm"]))


def test_weights_that_are_torn_or_of_other_sizes(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", "T5ForConditionalGeneration")
    file = tmp_path / "model" / "model.safetensors"
    weights = file.read_bytes()
    # each in a folder of its own: what is found in one is remembered
    for length in (0, 8, 100, len(weights) - 1):
        torn = shutil.copytree(model, tmp_path / f"torn{length}")
        (torn / file.name).write_bytes(weights[:length])
        assert "is torn" in refusal(lambda torn=torn: on(str(torn), tmp_path))
    empty = shutil.copytree(model, tmp_path / "empty")
    save_file({}, empty / file.name)
    assert "has no weights" in refusal(lambda: on(str(empty), tmp_path))
    other = shutil.copytree(model, tmp_path / "other")
    described = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**described, "d_ff": 40}))
    assert "is [48, 32] in its file and [40, 32] by its config.json" in refusal(lambda: on(str(other), tmp_path))


@pytest.mark.parametrize("change", [{"d_model": 0}, {"d_model": -8}, {"d_model": "zebra"}, {"num_heads": "x"}])
def test_a_configuration_of_which_no_model_can_be_built(change: dict[str, Any], tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", "T5ForConditionalGeneration")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert "config.json" in refusal(lambda: on(model, tmp_path))


def test_a_rate_that_is_none_is_no_override(tmp_path: Path) -> None:
    """What the sizes' own check does not know ends in what the architecture says of it."""
    assert "model.overrides" in refusal(lambda: small_config(tmp_path, overrides={"initializer_factor": "zebra"}))


def test_names_that_are_too_long_together(tmp_path: Path) -> None:
    for split in ("train", "test"):
        rows = [json.dumps({"text": f"{split} {number}", "label": str(number % 2)}) for number in range(20)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(rows))
    task = {"name": "a", "train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl")}
    config = on("tiny-t5", tmp_path / "out", methods=[{"preset": "ft", "name": "m" * 100}])
    values = config.model_dump() | {"streams": [{"name": "s" * 100, "tasks": [task]}]}
    line = refusal(lambda: RunConfig.model_validate(values))
    assert "characters together" in line and "200" in line
    assert not (tmp_path / "out").exists()
