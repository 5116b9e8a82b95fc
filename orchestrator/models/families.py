"""TODO orchestrator.models.families"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.config.model import ModelConfig
from orchestrator.models.decoder import Decoder
from orchestrator.models.encoder import EncoderWithHead
from orchestrator.models.encoder_decoder import EncoderDecoder
from orchestrator.models.family import Family
from orchestrator.models.sentence_encoder import EncoderBySimilarity
from orchestrator.models.source import ModelSource


def load_family(source: ModelSource, config: ModelConfig, labels: Sequence[str], seed: int) -> Family:
    """The family that fits the model and the scoring asked for. Raises ValueError where they do not go together."""
    return family_of(source, config)(source, config, labels, seed)


def family_of(source: ModelSource, config: ModelConfig) -> type[Family]:
    """As `load_family`, without loading weights."""
    scoring = config.scoring
    if source.kind != "encoder":
        if scoring not in ("auto", "generate"):
            raise ValueError(f"model.scoring: {scoring!r} goes with encoders; {config.name!r} is an {source.kind}")
        return EncoderDecoder if source.kind == "encoder-decoder" else Decoder
    if scoring == "generate":
        raise ValueError(f"model.scoring: {config.name!r} is an encoder and cannot generate; allowed: head, similarity")
    if scoring == "similarity" or (scoring == "auto" and source.sentence_encoder):
        return EncoderBySimilarity
    return EncoderWithHead
