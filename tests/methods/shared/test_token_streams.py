"""Which token stream each layer reads, in every family; streams of one shape are not mixed up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods.masking.output_units import maskable_weights
from methods.shared.token_streams import LayerStreams, by_token
from orchestrator.training.learner import Learner


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_decoders_cross_attention_reads_the_source(tuning: str, learner_of: Callable[..., Learner]) -> None:
    module = learner_of(methods=[tuning if tuning == "lora" else "ft"]).family.module
    streams = LayerStreams(module)
    found = {}
    for maskable in maskable_weights(module):
        found[maskable.name] = streams.of(maskable.name)
    for name, stream in found.items():
        reads_source = name.startswith("encoder.") or ".EncDecAttention.k" in name or ".EncDecAttention.v" in name
        assert stream == ("source" if reads_source else "target"), name
    assert set(found.values()) == {"source", "target"}
    assert streams.of("lm_head") == "target"


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-llama"])
def test_other_models_read_the_source_alone(model: str, learner_of: Callable[..., Learner]) -> None:
    module = learner_of(model=model).family.module
    streams = LayerStreams(module)
    assert {streams.of(maskable.name) for maskable in maskable_weights(module)} == {"source"}


def test_a_sentence_encoder_says_what_it_reads(learner_of: Callable[..., Learner]) -> None:
    family = learner_of(model="tiny-bert", scoring="similarity").family
    streams = LayerStreams(family.module)
    layer = next(m for m in family.module.modules() if isinstance(m, nn.Linear))
    read: list[tuple[str, int]] = []
    layer.register_forward_hook(lambda m, i, output: read.append((streams.of("any"), len(output))))
    features: list[Any] = [{"source": [5, 6], "target": [], "class_index": 0}] * 3
    family.forward(family.module, family.collate(features))
    assert read == [("source", 3), ("options", len(family.labels))]
    assert streams.of("any") == "source", "until the next pass"


def test_an_activation_that_is_not_one_vector_a_token_is_refused() -> None:
    by_token("layer", torch.zeros(2, 3, 8), torch.ones(2, 3))
    with pytest.raises(
        ValueError, match=r"layer 'layer': activations of shape \(2, 4, 8\) do not fit the mask \(2, 3\)"
    ):
        by_token("layer", torch.zeros(2, 4, 8), torch.ones(2, 3))


def test_magnitudes_of_targets_as_wide_as_their_sources(learner_of: Callable[..., Learner]) -> None:
    """One example whose answer is as long as its text, padded alike: every layer counts its own stream's tokens."""
    from methods.masking.magnitudes import Magnitudes

    family = learner_of().family
    features: list[Any] = [
        {"source": [300, 301, 302, 1], "target": [310, 1], "class_index": 0},
        {"source": [303, 1], "target": [311, 312, 313, 1], "class_index": 0},
    ]
    batch = family.collate(features)
    assert batch.target is not None
    assert batch.target.ids.shape == batch.source.ids.shape
    weights = maskable_weights(family.module)
    magnitudes = Magnitudes(family.module, weights)
    outputs: dict[str, Tensor] = {}
    for maskable in weights:
        maskable.measured.register_forward_hook(lambda m, i, o, name=maskable.name: outputs.update({name: o.detach()}))
    magnitudes.see(batch)
    family.forward(family.module, batch)
    for maskable, found in magnitudes.take(lambda tensor: tensor):
        name = maskable.name
        reads_source = name.startswith("encoder.") or ".EncDecAttention.k" in name or ".EncDecAttention.v" in name
        lengths = (4, 2) if reads_source else (2, 4)
        sizes = outputs[name].abs()
        expected = sizes[0, : lengths[0]].sum(0) + sizes[1, : lengths[1]].sum(0)
        torch.testing.assert_close(found, expected, msg=name)
