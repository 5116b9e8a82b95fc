"""Sentence encoders: text and label texts are encoded alike, and the nearest label is the answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from methods import Batch, TokenStream
from methods.shared.tensors import outside_autocast
from methods.shared.token_streams import Reading
from orchestrator.config.model import ModelConfig
from orchestrator.models.encoder import EncoderWithHead
from orchestrator.models.family import Family, Feature, column, mean_of_tokens, run_part, summed_cross_entropy
from orchestrator.models.loading import load_module
from orchestrator.models.padding import token_stream
from orchestrator.models.source import ModelSource


class Similarity(nn.Module):
    """Scores options by the scaled cosine of mean-pooled encodings (Sentence-BERT, arXiv 1908.10084)."""

    SCALE = 20.0  # of the published training objective of these sentence encoders

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = encoder.config
        self.reading = Reading()

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[B, d], of length 1."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return mean_of_tokens(hidden, attention_mask)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, option_ids: Tensor, option_mask: Tensor) -> Tensor:
        """[B, K] logits."""
        text_Bd = self.embed(input_ids, attention_mask)
        # the same layers now read other tokens, which methods that look at activations must know
        with self.reading.switched_to("options"):
            option_Kd = self.embed(option_ids, option_mask)
        # cosines lie close together, too close for bfloat16
        with outside_autocast(text_Bd):
            return self.SCALE * text_Bd @ option_Kd.T


class EncoderBySimilarity(EncoderWithHead):
    """Sentence encoders: the text and each label text are encoded by the same model; the nearest label wins. No head."""

    module: Similarity
    has_head = False

    def __init__(self, source: ModelSource, config: ModelConfig, labels: Sequence[str], seed: int) -> None:
        from transformers import AutoModel

        # past EncoderWithHead's own, which would make a head
        Family.__init__(self, source, config, labels, seed)
        self.module = Similarity(load_module(source, config, AutoModel, seed, add_pooling_layer=False))
        self.option_ids: list[list[int]] = self.tokenizer(list(self.labels)).input_ids

    def head(self) -> list[nn.Parameter]:
        return []

    def label_units(self) -> list[nn.Parameter]:
        return []

    def embed(self, batch: Batch) -> Tensor:
        inputs = {"input_ids": batch.source.ids, "attention_mask": batch.source.mask}
        hidden = run_part(self.module, self.module.encoder, inputs).last_hidden_state
        return mean_of_tokens(hidden, batch.source.mask)

    def collate(self, features: Sequence[Feature]) -> Batch:
        # labels of later tasks do not compete, as in a head
        options = token_stream(self.option_ids[: self.num_labels_seen], self.pad)
        return super().collate(features).replace(options=options)

    def forward(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        assert batch.options is not None
        logits_BK = module(**_inputs(batch.source, batch.options))
        return summed_cross_entropy(logits_BK, batch.labels), logits_BK

    def all_logits(self, features: Sequence[Feature], device: torch.device) -> Tensor:
        source = token_stream(column(features, "source"), self.pad).to(device)
        options = token_stream(self.option_ids, self.pad).to(device)
        return self.module(**_inputs(source, options))


def _inputs(source: TokenStream, options: TokenStream) -> dict[str, Tensor]:
    return {
        "input_ids": source.ids,
        "attention_mask": source.mask,
        "option_ids": options.ids,
        "option_mask": options.mask,
    }
