"""Which family a model belongs to, by its kind and the scoring that is asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from orchestrator.config.model import ModelConfig
from orchestrator.models.builtin import Kind
from orchestrator.models.decoder import Decoder
from orchestrator.models.encoder import EncoderWithHead
from orchestrator.models.encoder_decoder import EncoderDecoder
from orchestrator.models.families import family_of, load_family
from orchestrator.models.family import Family
from orchestrator.models.masked_lm import MaskedLanguageModel
from orchestrator.models.sentence_encoder import EncoderBySimilarity
from orchestrator.models.source import ModelSource
from orchestrator.planning.sequence_plan import SequencePlan

NO_ANSWER = "'mine' is an encoder and cannot generate; allowed: head, similarity, masked"
NO_ENCODER = "goes with encoders; 'mine' is no encoder; allowed: generate, rank, constrained"

CASES: list[tuple[Kind, bool, str, type[Family]]] = [
    ("encoder-decoder", False, "auto", EncoderDecoder),
    ("encoder-decoder", False, "generate", EncoderDecoder),
    ("decoder", False, "auto", Decoder),
    ("decoder", False, "generate", Decoder),
    ("decoder", False, "rank", Decoder),
    ("encoder-decoder", False, "constrained", EncoderDecoder),
    ("encoder", False, "auto", EncoderWithHead),
    ("encoder", True, "auto", EncoderBySimilarity),
    ("encoder", True, "head", EncoderWithHead),
    ("encoder", False, "similarity", EncoderBySimilarity),
    ("encoder", True, "masked", MaskedLanguageModel),
]


def source_of(kind: Kind, sentence_encoder: bool = False) -> ModelSource:
    """A model of a kind, which is not loaded."""
    return ModelSource(kind, sentence_encoder, "id", "mine", None)


@pytest.mark.parametrize(("kind", "sentence_encoder", "scoring", "family"), CASES)
def test_kind_and_scoring_give_the_family(
    kind: Kind, sentence_encoder: bool, scoring: str, family: type[Family]
) -> None:
    config = ModelConfig.model_validate({"name": "mine", "scoring": scoring})
    assert family_of(source_of(kind, sentence_encoder), config) is family


@pytest.mark.parametrize(
    ("kind", "scoring", "message"),
    [
        ("encoder", "generate", f"model.scoring: 'generate': {NO_ANSWER}"),
        ("encoder", "rank", f"model.scoring: 'rank': {NO_ANSWER}"),
        ("encoder", "constrained", f"model.scoring: 'constrained': {NO_ANSWER}"),
        ("decoder", "head", f"model.scoring: 'head' {NO_ENCODER}"),
        ("encoder-decoder", "similarity", f"model.scoring: 'similarity' {NO_ENCODER}"),
    ],
)
def test_what_does_not_go_together_is_refused(kind: Kind, scoring: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        family_of(source_of(kind), ModelConfig.model_validate({"name": "mine", "scoring": scoring}))
    assert str(caught.value) == message


def test_labels_and_seed_reach_the_family_that_is_loaded(sequence_of: Callable[..., SequencePlan]) -> None:
    config = sequence_of(model="tiny-bert").model
    source = ModelSource("encoder", False, "id", None, None)
    heads = []
    for seed in (1, 1, 2):
        family = load_family(source, config, ["good", "bad", "new"], seed)
        assert isinstance(family, EncoderWithHead)
        assert family.output.out_features == 3
        heads.append(family.output.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
