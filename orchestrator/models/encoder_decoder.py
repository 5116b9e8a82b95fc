"""Encoder-decoders: the encoder reads the prompt, the decoder writes the label text."""

from __future__ import annotations

import inspect
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from methods import IGNORED, Batch, TokenStream
from orchestrator.config.model import ModelConfig
from orchestrator.models.family import (
    Answer,
    Family,
    Feature,
    column,
    run_part,
    summed_by_example,
    summed_cross_entropy,
)
from orchestrator.models.loading import load_module
from orchestrator.models.padding import lengths_mask, pad_right, token_stream
from orchestrator.models.source import ModelSource
from streams import Example, Task


@dataclass(frozen=True)
class ReadPrompts:
    """What a model keeps of the prompts that it has read: the encoder's output, or a decoder's keys and values.

    `mask` [B, S] is 1 on their tokens; `next_logits` [B, V] are a decoder's for the first token of an answer.
    """

    mask: Tensor
    states: Any
    next_logits: Tensor | None = None


class EncoderDecoder(Family):
    """T5 and its kin: reads the prompt, generates the label text."""

    generates = True

    def __init__(self, source: ModelSource, config: ModelConfig, labels: Sequence[str], seed: int) -> None:
        from transformers import AutoModelForSeq2SeqLM

        super().__init__(source, config, labels, seed)
        self.module = load_module(source, config, AutoModelForSeq2SeqLM, seed)

    def features(self, task: Task, examples: Sequence[Example]) -> list[Feature]:
        sources = self.encode_texts(task, examples)
        targets = self.answer_ids([example.label for example in examples])
        found: list[Feature] = []
        for source, target, example in zip(sources, targets, examples, strict=True):
            found.append({"source": source, "target": target, "class_index": self.class_index(task, example)})
        return found

    def answer_ids(self, answers: Sequence[str]) -> list[list[int]]:
        """The tokens of answers, at most `max_target` with the end of each."""
        ids: list[list[int]] = self.tokenizer(
            list(answers), truncation=True, max_length=self.config.max_target
        ).input_ids
        return ids

    def whole_answer_ids(self, answer: str) -> list[int]:
        """The tokens of an answer and its end, however many."""
        ids: list[int] = self.tokenizer(answer).input_ids
        return ids

    def num_bytes(self, answer: str, ids: Sequence[int]) -> int:
        """The bytes of the text that the tokens of an answer stand for; of one that was cut, of what is left."""
        if len(ids) < self.config.max_target or len(self.whole_answer_ids(answer)) <= self.config.max_target:
            return len(answer.encode())
        left: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return len(left.strip().encode())

    def loss_terms(self, feature: Feature) -> int:
        return len(feature["target"])

    def collate(self, features: Sequence[Feature]) -> Batch:
        targets = column(features, "target")
        labels = pad_right(targets, IGNORED)
        # what the decoder reads while it predicts the labels: each answer, one token later
        shifted = self.module.prepare_decoder_input_ids_from_labels(labels=labels)  # type: ignore[operator]
        return Batch(
            source=token_stream(column(features, "source"), self.pad),
            target=TokenStream(shifted, lengths_mask(targets)),
            labels=labels,
            classes=torch.tensor(column(features, "class_index")),
        )

    def forward(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        assert batch.target is not None
        # no mask for the decoder: it looks back only, so real tokens never see the padding behind them
        logits_BDV = module(
            input_ids=batch.source.ids,
            attention_mask=batch.source.mask,
            decoder_input_ids=batch.target.ids,
            **self.without_cache,
        ).logits
        assert batch.answers is not None
        logits_NV = logits_BDV.flatten(0, 1).index_select(0, batch.answers)
        return summed_cross_entropy(logits_NV, batch.answer_tokens()), logits_NV

    @cached_property
    def without_cache(self) -> dict[str, bool]:
        """The argument that keeps a forward pass from storing keys and values, which generation alone reads again."""
        if "use_cache" in self.known_arguments:
            return {"use_cache": False}
        return {}

    @cached_property
    def known_arguments(self) -> Container[str]:
        """The names of the arguments of the model's forward pass."""
        return inspect.signature(self.module.forward).parameters

    def answers(self, task: Task, features: Sequence[Feature], device: torch.device) -> list[Answer]:
        source = token_stream(column(features, "source"), self.pad).to(device)
        return self.generate(task, source, skip=0)

    def read(self, features: Sequence[Feature], device: torch.device) -> ReadPrompts:
        source = token_stream(column(features, "source"), self.pad).to(device)
        inputs = {"input_ids": source.ids, "attention_mask": source.mask}
        encoder = self.module.get_encoder()  # type: ignore[operator]
        return ReadPrompts(source.mask, run_part(self.module, encoder, inputs))

    def answer_losses(self, prompts: ReadPrompts, answers: Sequence[Sequence[int]]) -> Tensor:
        labels_BL = pad_right(answers, IGNORED).to(prompts.mask.device)
        shifted = self.module.prepare_decoder_input_ids_from_labels(labels=labels_BL)  # type: ignore[operator]
        logits_BLV = self.module(
            encoder_outputs=prompts.states,
            attention_mask=prompts.mask,
            decoder_input_ids=shifted,
            **self.without_cache,
        ).logits
        return summed_by_example(logits_BLV, labels_BL)

    def generate(self, task: Task, source: TokenStream, skip: int) -> list[Answer]:
        """Greedy generation; `skip` leading tokens of the output are the prompt."""
        generated = self.module.generate(  # type: ignore[operator]
            input_ids=source.ids,
            attention_mask=source.mask,
            max_new_tokens=self.max_new_tokens(task),
            do_sample=False,
            num_beams=1,
            pad_token_id=self.pad,
            eos_token_id=self.last_tokens(),
        )
        answers: list[Answer] = []
        for text in self.tokenizer.batch_decode(generated[:, skip:], skip_special_tokens=True):
            answers.append((text, None))
        return answers

    def max_new_tokens(self, task: Task) -> int:
        """The tokens of the task's longest label and one more: a longer answer equals no label, so going on is in vain.

        Without a label set, `max_target`.
        """
        if not task.labels:
            return self.config.max_target
        longest = max(map(len, self.tokenizer(list(task.labels)).input_ids))
        return min(self.config.max_target, longest + 1)

    def last_tokens(self) -> list[int]:
        """The tokens with which an answer is over."""
        return [self.tokenizer.eos_token_id]
