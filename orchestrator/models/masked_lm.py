"""Masked language models: encoders that fill in what is hidden of a text.

Shapes: S tokens of a block, C those that may be chosen, M those that were.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from methods import IGNORED, Batch, generator
from orchestrator.config.model import ModelConfig
from orchestrator.models.family import Family, Feature, column, summed_cross_entropy
from orchestrator.models.loading import load_module
from orchestrator.models.packing.blocks import WholeBlocks
from orchestrator.models.packing.tokens import PackedTokens
from orchestrator.models.padding import pad_right, token_stream
from orchestrator.models.source import ModelSource

# BERT's shares (arXiv 1810.04805): of the tokens that are predicted; and of these, hidden, and replaced by a random one
PREDICTED = 0.15
HIDDEN = 0.8
REPLACED = 0.1


class MaskedLanguageModel(Family):
    """BERT, RoBERTa with the head that they were pre-trained with.

    Of the C tokens of a block that are not special, max(1, round(0.15 C)) are predicted: 80 % of them are hidden by the mask
    token, 10 % replaced by a random token, 10 % left as they are. So many exactly, as in BERT's released code, where RoBERTa
    (arXiv 1907.11692) draws each token by itself. The choice is drawn anew in each epoch and is a pure function of (seed,
    task, epoch, block); out of training it is that of the block alone, so that scores of two states are of the same tokens.
    """

    objectives = frozenset({"text"})

    def __init__(self, source: ModelSource, config: ModelConfig, labels: Sequence[str], seed: int) -> None:
        from transformers import AutoModelForMaskedLM

        super().__init__(source, config, labels, seed)
        for token in ("mask", "cls", "sep"):
            if getattr(self.tokenizer, f"{token}_token_id") is None:
                raise ValueError(
                    f"model {config.name!r}: its tokenizer has no {token} token, without which it cannot learn from corpora"
                )
        self.module = load_module(source, config, AutoModelForMaskedLM, seed)
        self.first = self.tokenizer.cls_token_id
        self.document_end = self.tokenizer.sep_token_id
        # room for the first and the last token of a text
        self.block_length = config.max_source - 2
        # the mask token too: a text in which it stands says nothing of what it hides
        self.special = frozenset(self.tokenizer.all_special_ids)

    def blocks(self, tokens: PackedTokens) -> Sequence[Feature]:
        return WholeBlocks(tokens, self.first, self.document_end)

    def drawn(self, features: Sequence[Feature], task: int, epoch: int) -> list[Feature]:
        drawn: list[Feature] = []
        for feature in features:
            drawn.append({**feature, "draw": [self.seed, task, epoch]})
        return drawn

    def loss_terms(self, feature: Feature) -> int:
        return num_predicted(len(self._candidates(feature["source"])))

    def _candidates(self, ids: Sequence[int]) -> list[int]:
        """The positions of tokens that may be chosen."""
        candidates = []
        for position, token in enumerate(ids):
            if token not in self.special:
                candidates.append(position)
        # of a block that holds nothing else, any
        return candidates or list(range(len(ids)))

    def collate(self, features: Sequence[Feature]) -> Batch:
        read = []
        labels = []
        for feature in features:
            ids, predicted = self._masked(feature)
            read.append(ids.tolist())
            labels.append(predicted.tolist())
        return Batch(
            source=token_stream(read, self.pad),
            labels=pad_right(labels, IGNORED),
            classes=torch.tensor(column(features, "class_index")),
        )

    def _masked(self, feature: Feature) -> tuple[Tensor, Tensor]:
        """What is read of a block and what is to be predicted, [S] each."""
        block = feature.get("block", [])
        rng = generator("mask", *feature.get("draw", []), *block)
        candidates = torch.tensor(self._candidates(feature["source"]))
        ids = torch.tensor(feature["source"])
        return mask(ids, candidates, self.tokenizer.mask_token_id, len(self.tokenizer), rng)

    def forward(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        assert batch.answers is not None
        logits_BSV = module(input_ids=batch.source.ids, attention_mask=batch.source.mask).logits
        logits_MV = logits_BSV.flatten(0, 1).index_select(0, batch.answers)
        return summed_cross_entropy(logits_MV, batch.answer_tokens()), logits_MV


def num_predicted(candidates: int) -> int:
    """max(1, round(0.15 C))."""
    return max(1, round(PREDICTED * candidates))


def mask(
    ids_S: Tensor, candidates_C: Tensor, mask_token: int, vocabulary: int, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(ids [S] as they are read, labels [S]: the token at each chosen position, IGNORED elsewhere)."""
    count = num_predicted(len(candidates_C))
    chosen_M = candidates_C[torch.randperm(len(candidates_C), generator=rng)[:count]]
    # drawn for all of them, whichever is taken: what one token becomes moves no later draw
    kind_M = torch.rand(count, generator=rng)
    random_M = torch.randint(vocabulary, (count,), generator=rng)
    original_M = ids_S[chosen_M]
    read_M = torch.where(kind_M < HIDDEN + REPLACED, random_M, original_M)
    read_M = torch.where(kind_M < HIDDEN, mask_token, read_M)
    labels_S = torch.full_like(ids_S, IGNORED)
    labels_S[chosen_M] = original_M
    ids_S = ids_S.clone()
    ids_S[chosen_M] = read_M
    return ids_S, labels_S
