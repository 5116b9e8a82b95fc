"""Decoders: one stream of tokens holds the prompt and, behind it, the answer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from methods import IGNORED, Batch, TokenStream
from methods.shared.reader import cache_name
from orchestrator.config.model import ModelConfig
from orchestrator.models.chat import ChatTemplate
from orchestrator.models.encoder_decoder import EncoderDecoder, ReadPrompts
from orchestrator.models.family import Family, Feature, column, summed_by_example, summed_cross_entropy
from orchestrator.models.loading import load_module
from orchestrator.models.packing.blocks import ContinuedBlocks
from orchestrator.models.packing.tokens import PackedTokens
from orchestrator.models.padding import pad_left, pad_right, token_stream
from orchestrator.models.source import ModelSource
from streams import Example, Prompt, Task


class Decoder(EncoderDecoder):
    """Llama and its kin: continues the prompt with the label text; the loss counts the answer's tokens alone.

    Of a corpus, it counts all tokens.
    """

    objectives = frozenset({"answer", "text"})

    def __init__(self, source: ModelSource, config: ModelConfig, labels: Sequence[str], seed: int) -> None:
        from transformers import AutoModelForCausalLM

        Family.__init__(self, source, config, labels, seed)
        self.chat: ChatTemplate | None = None
        # what an answer begins with: the space belongs to its first token, as it does within a text
        self.lead = " "
        self.end = [self.tokenizer.eos_token_id]
        # the documents of a corpus end as an answer does without a chat, and a block has one token before it
        self.document_end = self.tokenizer.eos_token_id
        self.block_length = config.max_source - 1
        if config.input == "chat":
            self._use_chat()
        self.module = load_module(source, config, AutoModelForCausalLM, seed)

    def _use_chat(self) -> None:
        self.chat = ChatTemplate.of(self.tokenizer, self.config.name)
        self.lead = self.chat.lead
        self.end = self.chat.end_tokens(self.tokenizer)
        # the template writes them itself
        self.adds_special_tokens = False

    def use_text(self, task: Task, example: Example) -> Prompt:
        if self.chat is not None:
            return self.chat.ask(example.prompt or task.prompt(example.text))
        return super().use_text(task, example)

    def features(self, task: Task, examples: Sequence[Example]) -> list[Feature]:
        sources = self.encode_texts(task, examples)
        targets = self.answer_ids([example.label for example in examples])
        found: list[Feature] = []
        for source, target, example in zip(sources, targets, examples, strict=True):
            # the prompt goes on with the answer: a tokenizer's own end must not stand between them
            if self.adds_special_tokens and len(source) > 1 and source[-1] == self.tokenizer.eos_token_id:
                source = source[:-1]
            class_index = self.class_index(task, example)
            found.append({"source": source, "target": target, "class_index": class_index})
        return found

    def blocks(self, tokens: PackedTokens) -> Sequence[Feature]:
        begin = self.tokenizer.bos_token_id
        if begin is None:
            begin = self.document_end
        return ContinuedBlocks(tokens, begin)

    def answer_ids(self, answers: Sequence[str]) -> list[list[int]]:
        # room for the end, without which the model would never learn to stop
        limit = self.config.max_target - len(self.end)
        ended = []
        for ids in self._begun_answers(answers):
            ended.append([*ids[:limit], *self.end])
        return ended

    def whole_answer_ids(self, answer: str) -> list[int]:
        (ids,) = self._begun_answers([answer])
        return [*ids, *self.end]

    def _begun_answers(self, answers: Sequence[str]) -> list[list[int]]:
        """The ids of answers without their end."""
        texts = [self.lead + answer for answer in answers]
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False).input_ids
        return ids

    def length(self, feature: Feature) -> int:
        # the answer stands behind the text
        return len(feature["source"]) + len(feature["target"])

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
        assert batch.answers is not None
        length = batch.source.ids.shape[1]
        # the logits at a token are those of the next one
        kept = length
        arguments: dict[str, int] = dict(self.without_cache)
        if self._may_leave_logits_out:
            # what comes before the first answer is asked for by nobody, and has as many columns as there are tokens to choose
            kept = length - batch.first_answer + 1
            arguments["logits_to_keep"] = kept
        logits_BSV = module(input_ids=batch.source.ids, attention_mask=batch.source.mask, **arguments).logits
        examples_N = batch.answers // length
        positions_N = batch.answers % length - 1 - (length - kept)
        logits_NV = logits_BSV.flatten(0, 1).index_select(0, examples_N * kept + positions_N)
        return summed_cross_entropy(logits_NV, batch.answer_tokens()), logits_NV

    @property
    def _may_leave_logits_out(self) -> bool:
        """Whether the model takes the argument, and nobody looks at what its head gives for each token."""
        head: Any = self.module.get_output_embeddings()  # type: ignore[operator]
        is_watched = head is None or head._forward_hooks or head._forward_pre_hooks
        return "logits_to_keep" in self.known_arguments and not is_watched

    def num_before_answer(self, source: TokenStream) -> int:
        return source.ids.shape[1]

    def padded_prompts(self, features: Sequence[Feature]) -> TokenStream:
        # padding comes first, so that every example's answer begins at the same position
        sources = column(features, "source")
        return TokenStream(pad_left(sources, self.pad), pad_left([[1] * len(source) for source in sources], 0))

    def read(self, features: Sequence[Feature], device: torch.device) -> ReadPrompts:
        # from its state it reads one token at a time, and has no mask for padding that stood before it
        if getattr(self.module, "_is_stateful", False):
            raise ValueError(
                f"{self.config.name!r} keeps a state of what it has read and no keys and values: neither perplexity and bits "
                "per byte nor model.scoring: rank are computed with it"
            )
        source = self.padded_prompts(features).to(device)
        arguments: dict[str, Any] = {"use_cache": True}
        if self._may_leave_logits_out:
            arguments["logits_to_keep"] = 1
        output = self.module(
            input_ids=source.ids, attention_mask=source.mask, **self._positions(source.mask), **arguments
        )
        cache = getattr(output, cache_name(self.module))
        return ReadPrompts(source.mask, cache, output.logits[:, -1])

    def answer_losses(self, prompts: ReadPrompts, answers: Sequence[Sequence[int]]) -> Tensor:
        assert prompts.next_logits is not None
        labels_BL = pad_right(answers, IGNORED).to(prompts.mask.device)
        logits_BLV = prompts.next_logits[:, None]
        # the last label is predicted, and not read
        read_BL = labels_BL[:, :-1]
        if read_BL.shape[1]:
            later_BLV = self._go_on(prompts, read_BL.masked_fill(read_BL == IGNORED, self.pad))
            logits_BLV = torch.cat([logits_BLV, later_BLV], dim=1)
        return summed_by_example(logits_BLV, labels_BL)

    def _go_on(self, prompts: ReadPrompts, ids_BL: Tensor) -> Tensor:
        """[B, L, V]: the logits at tokens that stand behind the prompts, of which the model keeps no memory."""
        mask = torch.cat([prompts.mask, torch.ones_like(ids_BL)], dim=1)
        positions = {}
        for name, ids_BS in self._positions(mask).items():
            positions[name] = ids_BS[:, prompts.mask.shape[1] :]
        # a copy: the next answer goes on from the prompts again, and not every kind of cache can be cut back
        cache = {cache_name(self.module): copy.deepcopy(prompts.states)}
        # padding behind an answer is masked by nothing: real tokens look back only
        logits_BLV: Tensor = self.module(
            input_ids=ids_BL, attention_mask=mask, use_cache=True, **cache, **positions
        ).logits
        return logits_BLV

    def _positions(self, mask_BS: Tensor) -> dict[str, Tensor]:
        """The positions of tokens behind padding, which the model would count too."""
        if "position_ids" in self.known_arguments:
            return {"position_ids": (mask_BS.cumsum(1) - 1).clamp(min=0)}
        return {}

    def max_new_tokens(self, task: Task) -> int:
        if not task.labels:
            return self.config.max_target
        longest = max(map(len, self._begun_answers(task.labels)))
        # the end is a token too, and one more makes an answer that is too long differ from the label
        return min(self.config.max_target, longest + len(self.end) + 1)

    def last_tokens(self) -> list[int]:
        return [self.end[-1]]
