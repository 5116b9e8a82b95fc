"""Decoders: one stream of tokens holds the prompt and, behind it, the answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from methods import IGNORED, Batch, TokenStream
from orchestrator.config.model import ModelConfig
from orchestrator.models.encoder_decoder import EncoderDecoder
from orchestrator.models.family import Answer, Family, Feature, column, summed_cross_entropy
from orchestrator.models.loading import load_module
from orchestrator.models.padding import pad_left, pad_right, token_stream
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
        # room for the end, without which the model would never learn to stop
        limit = self.config.max_target - 1
        sources = self.encode_texts(task, examples)
        # the space belongs to the answer's first token, as it does within a text
        answers = [" " + example.label for example in examples]
        targets = self.tokenizer(answers, add_special_tokens=False).input_ids
        found: list[Feature] = []
        for source, target, example in zip(sources, targets, examples, strict=True):
            # the prompt goes on with the answer: a tokenizer's own end must not stand between them
            if len(source) > 1 and source[-1] == end:
                source = source[:-1]
            class_index = self.class_index(task, example)
            found.append({"source": source, "target": [*target[:limit], end], "class_index": class_index})
        return found

    def collate(self, features: Sequence[Feature]) -> Batch:
        read = []
        labels = []
        for feature in features:
            read.append(feature["source"] + feature["target"])
            labels.append([IGNORED] * len(feature["source"]) + feature["target"])
        return Batch(
            source=token_stream(read, self.pad),
            labels=pad_right(labels, IGNORED),
            classes=torch.tensor(column(features, "class_index")),
        )

    def forward(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = module(input_ids=batch.source.ids, attention_mask=batch.source.mask).logits
        # the logits at a token are those of the next one
        return summed_cross_entropy(logits[:, :-1], batch.labels[:, 1:]), logits

    def answers(self, task: Task, features: Sequence[Feature], device: torch.device) -> list[Answer]:
        sources = column(features, "source")
        # padding comes first, so that every example's answer begins at the same position
        ids = pad_left(sources, self.pad)
        mask = pad_left([[1] * len(source) for source in sources], 0)
        return self.generate(task, TokenStream(ids, mask).to(device), skip=ids.shape[1])

    def max_new_tokens(self, task: Task) -> int:
        if not task.labels:
            return self.config.max_target
        answers = [" " + label for label in task.labels]
        longest = max(map(len, self.tokenizer(answers, add_special_tokens=False).input_ids))
        # the end is a token too, and one more makes an answer that is too long differ from the label
        return min(self.config.max_target, longest + 2)
