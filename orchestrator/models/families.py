"""Which family a model belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.config.model import CHOOSING, ModelConfig
from orchestrator.models.decoder import Decoder
from orchestrator.models.encoder import EncoderWithHead
from orchestrator.models.encoder_decoder import EncoderDecoder
from orchestrator.models.family import Family
from orchestrator.models.masked_lm import MaskedLanguageModel
from orchestrator.models.sentence_encoder import EncoderBySimilarity
from orchestrator.models.source import ModelSource


def load_family(source: ModelSource, config: ModelConfig, labels: Sequence[str], seed: int) -> Family:
    """The model, in the family that fits it and the scoring asked for. Raises ValueError where they do not go together."""
    return family_of(source, config)(source, config, labels, seed)


def family_of(source: ModelSource, config: ModelConfig) -> type[Family]:
    """The family's class, without loading weights. Raises ValueError where model and scoring do not go together."""
    scoring = config.scoring
    if config.input == "chat" and source.kind != "decoder":
        raise ValueError(
            f"model.input: 'chat' goes with decoders; {config.name!r} is none; allowed: auto, prompt, text"
        )
    if source.kind != "encoder":
        if scoring not in ("auto", "generate", *CHOOSING):
            raise ValueError(
                f"model.scoring: {scoring!r} goes with encoders; {config.name!r} is no encoder; allowed: generate, "
                + ", ".join(CHOOSING)
            )
        if source.kind == "encoder-decoder":
            return EncoderDecoder
        return Decoder
    if scoring in ("generate", *CHOOSING):
        raise ValueError(
            f"model.scoring: {scoring!r}: {config.name!r} is an encoder and cannot generate; allowed: head, similarity, masked"
        )
    if scoring == "masked":
        return MaskedLanguageModel
    if scoring == "similarity" or (scoring == "auto" and source.sentence_encoder):
        return EncoderBySimilarity
    return EncoderWithHead
