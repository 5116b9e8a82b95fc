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


class AllowedTokens:
    """Which tokens may come next in an answer that is to be one of several: the children of a node in the tree of these."""

    def __init__(self, answers: Sequence[Sequence[int]], num_before: int, pad: int) -> None:
        self.num_before = num_before
        self.pad = pad
        self.following: dict[tuple[int, ...], list[int]] = {}
        for ids in answers:
            for position, token in enumerate(ids):
                following = self.following.setdefault(tuple(ids[:position]), [])
                if token not in following:
                    following.append(token)

    def __call__(self, example: int, ids: Tensor) -> list[int]:
        """The tokens that may follow those of one example, of which the first are no part of the answer."""
        written = tuple(ids[self.num_before :].tolist())
        # behind the end there is padding, until the longest answer of the batch has ended too
        return self.following.get(written, [self.pad])


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
        """The answer to each example, in the way that `model.scoring` says."""
        if self.config.scoring == "rank":
            return self.ranked(task, features, device)
        source = self.padded_prompts(features).to(device)
        if self.config.scoring == "constrained":
            return self.constrained(task, source)
        answers: list[Answer] = []
        for text in self.tokenizer.batch_decode(self.generate(task, source), skip_special_tokens=True):
            answers.append((text, None))
        return answers

    def padded_prompts(self, features: Sequence[Feature]) -> TokenStream:
        """The prompts as generation reads them."""
        return token_stream(column(features, "source"), self.pad)

    def ranked(self, task: Task, features: Sequence[Feature], device: torch.device) -> list[Answer]:
        """For each example that label of its task which is likeliest; of equal ones the first.

        The likelihood is that of all tokens of the label and of the end behind them, not divided by their number: it is the
        probability that the model would write this label and no more, so that a long label has no advantage of its length.
        """
        prompts = self.read(features, device)
        losses = []
        for ids in self.option_ids(task):
            # the prompts are read once for all labels
            losses.append(self.answer_losses(prompts, [ids] * len(features)))
        best = torch.stack(losses, dim=1).argmin(1).tolist()
        return [(task.labels[index], None) for index in best]

    def option_ids(self, task: Task) -> list[list[int]]:
        """The tokens of each label of a task. Raises ValueError where two labels have the same ones."""
        options = self.answer_ids(task.labels)
        first: dict[tuple[int, ...], str] = {}
        for label, ids in zip(task.labels, options, strict=True):
            other = first.setdefault(tuple(ids), label)
            if other != label:
                raise ValueError(
                    f"task {task.name!r}: the labels {other!r} and {label!r} are one to {self.config.name!r}, in at most "
                    f"model.max_target: {self.config.max_target} tokens, so model.scoring: {self.config.scoring} cannot choose"
                )
        return options

    def read(self, features: Sequence[Feature], device: torch.device) -> ReadPrompts:
        source = self.padded_prompts(features).to(device)
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

    def constrained(self, task: Task, source: TokenStream) -> list[Answer]:
        """Greedy generation in which at each token only those compete that go on with one of the task's labels."""
        options = self.option_ids(task)
        allowed = AllowedTokens(options, self.num_before_answer(source), self.pad)
        answers: list[Answer] = []
        for written in self.generate(task, source, prefix_allowed_tokens_fn=allowed).tolist():
            for label, ids in zip(task.labels, options, strict=True):
                # the label itself, not what its tokens read: a tokenizer may not know all of its letters
                if written[: len(ids)] == ids:
                    answers.append((label, None))
        return answers

    def generate(self, task: Task, source: TokenStream, **arguments: Any) -> Tensor:
        """[B, D]: the tokens that greedy generation writes behind the prompts."""
        generated: Tensor = self.module.generate(  # type: ignore[operator]
            input_ids=source.ids,
            attention_mask=source.mask,
            max_new_tokens=self.max_new_tokens(task),
            do_sample=False,
            num_beams=1,
            pad_token_id=self.pad,
            eos_token_id=self.last_tokens(),
            **arguments,
        )
        return generated[:, self.num_before_answer(source) :]

    def num_before_answer(self, source: TokenStream) -> int:
        """How many tokens stand before an answer in what generation gives: the one that each begins with."""
        return 1

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
