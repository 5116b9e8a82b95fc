"""TODO orchestrator.models.encoder_decoder"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from methods import IGNORED, Batch, TokenStream
from orchestrator.config.model import ModelConfig
from orchestrator.models.family import Family, Feature, summed_cross_entropy
from orchestrator.models.loading import load_module
from orchestrator.models.padding import lengths_mask, pad_right
from orchestrator.models.source import ModelSource
from streams import Example, Task


class EncoderDecoder(Family):
    """T5 and its kin: reads the prompt, generates the label text."""

    generates = True

    def __init__(self, source: ModelSource, config: ModelConfig, labels: Sequence[str], seed: int) -> None:
        from transformers import AutoModelForSeq2SeqLM

        super().__init__(source, config, labels, seed)
        self.module = load_module(source, config, AutoModelForSeq2SeqLM, seed)

    def features(self, task: Task, examples: Sequence[Example]) -> list[Feature]:
        sources = self.encode([self.use_text(task, e) for e in examples])
        targets = self.tokenizer([e.label for e in examples], truncation=True, max_length=self.config.max_target)
        return [
            {"source": s, "target": t, "class": self.labels.index(e.label)}
            for s, t, e in zip(sources, targets.input_ids, examples, strict=True)
        ]

    def loss_terms(self, feature: Feature) -> int:
        return len(feature["target"])

    def collate(self, features: Sequence[Feature]) -> Batch:
        sources, targets = [f["source"] for f in features], [f["target"] for f in features]
        source = pad_right(sources, self.pad)
        labels = pad_right(targets, IGNORED)
        # what the decoder reads while it predicts the labels: each answer, one token later
        shifted = self.module.prepare_decoder_input_ids_from_labels(labels=labels)  # type: ignore[operator]
        return Batch(
            source=TokenStream(source, lengths_mask(sources, source.shape[1])),
            target=TokenStream(shifted, lengths_mask(targets, labels.shape[1])),
            labels=labels,
            classes=torch.tensor([f["class"] for f in features]),
        )

    def forward(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        assert batch.target is not None
        logits = module(
            input_ids=batch.source.ids, attention_mask=batch.source.mask, decoder_input_ids=batch.target.ids
        ).logits
        return summed_cross_entropy(logits, batch.labels), logits

    def answers(self, task: Task, features: Sequence[Feature], device: torch.device) -> list[tuple[str, str | None]]:
        source = self.collate(features).source.to(device)
        return self.generate(task, source.ids, source.mask, skip=0)

    def generate(
        self, task: Task, input_ids: Tensor, attention_mask: Tensor, skip: int
    ) -> list[tuple[str, str | None]]:
        """Greedy generation; `skip` leading tokens of the output are the prompt."""
        out = self.module.generate(  # type: ignore[operator]
            input_ids=input_ids,
            attention_mask=attention_mask,
            max_new_tokens=self._longest_answer(task),
            do_sample=False,
            num_beams=1,
            pad_token_id=self.pad,
            eos_token_id=self.tokenizer.eos_token_id,
        )
        texts = self.tokenizer.batch_decode(out[:, skip:], skip_special_tokens=True)
        return [(text, None) for text in texts]

    def _longest_answer(self, task: Task) -> int:
        """Tokens of the task's longest label and one more: a longer answer equals no label, so going on is in vain."""
        longest = max(len(ids) for ids in self.tokenizer(list(task.labels)).input_ids)
        return min(self.config.max_target, longest + 1)
