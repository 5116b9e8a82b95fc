"""TODO orchestrator.models.decoder"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from methods import IGNORED, Batch, TokenStream
from orchestrator.config.model import ModelConfig
from orchestrator.models.encoder_decoder import EncoderDecoder
from orchestrator.models.family import Family, Feature, summed_cross_entropy
from orchestrator.models.loading import load_module
from orchestrator.models.padding import lengths_mask, pad_left, pad_right
from orchestrator.models.source import ModelSource
from streams import Example, Task


class Decoder(EncoderDecoder):
    """Llama and its kin: continues the prompt with the label text; the loss counts the answer's tokens alone."""

    def __init__(self, source: ModelSource, config: ModelConfig, labels: Sequence[str], seed: int) -> None:
        from transformers import AutoModelForCausalLM

        Family.__init__(self, source, config, labels, seed)
        self.module = load_module(source, config, AutoModelForCausalLM, seed)

    def features(self, task: Task, examples: Sequence[Example]) -> list[Feature]:
        end = self.tokenizer.eos_token_id
        sources = self.encode([self.use_text(task, e) for e in examples])
        sources = [ids[:-1] if len(ids) > 1 and ids[-1] == end else ids for ids in sources]
        answers = self.tokenizer([" " + e.label for e in examples], add_special_tokens=False).input_ids
        limit = self.config.max_target - 1
        return [
            {"source": s, "target": [*t[:limit], end], "class": self.labels.index(e.label)}
            for s, t, e in zip(sources, answers, examples, strict=True)
        ]

    def collate(self, features: Sequence[Feature]) -> Batch:
        rows = [f["source"] + f["target"] for f in features]
        labels = [[IGNORED] * len(f["source"]) + f["target"] for f in features]
        ids = pad_right(rows, self.pad)
        return Batch(
            source=TokenStream(ids, lengths_mask(rows, ids.shape[1])),
            labels=pad_right(labels, IGNORED),
            classes=torch.tensor([f["class"] for f in features]),
        )

    def forward(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = module(input_ids=batch.source.ids, attention_mask=batch.source.mask).logits
        return summed_cross_entropy(logits[:, :-1], batch.labels[:, 1:]), logits

    def answers(self, task: Task, features: Sequence[Feature], device: torch.device) -> list[tuple[str, str | None]]:
        rows = [f["source"] for f in features]
        ids = pad_left(rows, self.pad).to(device)
        mask = pad_left([[1] * len(row) for row in rows], 0).to(device)
        return self.generate(task, ids, mask, skip=ids.shape[1])

    def _longest_answer(self, task: Task) -> int:
        texts = [" " + label for label in task.labels]
        longest = max(len(ids) for ids in self.tokenizer(texts, add_special_tokens=False).input_ids)
        return min(self.config.max_target, longest + 2)
