"""How each family of models reads examples, computes its loss, and answers.

Shapes: B examples, S source tokens, D target tokens, V vocabulary, K labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NotRequired, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods import IGNORED, NO_CLASS, Batch, at_least_float32
from orchestrator.config.model import ModelConfig
from orchestrator.models.loading import load_tokenizer
from orchestrator.models.packing.tokens import PackedTokens, Packer
from orchestrator.models.source import ModelSource
from streams import Corpus, Example, Objective, Prompt, Split, Task


class Feature(TypedDict):
    """One example as token ids, before it is collated: `target` is the answer (empty for encoders), `class_index` says
    which label of the stream it is; NO_CLASS where the task has no label set.

    Of a corpus, `block` names the block that it is, and `draw` the epoch for which something is drawn in it.
    """

    source: list[int]
    target: list[int]
    class_index: int
    block: NotRequired[list[Any]]
    draw: NotRequired[list[int]]


# An answer, and the answer when only the task's own options compete (None where answers are not chosen from options)
Answer = tuple[str, str | None]
WriteRows = Callable[[nn.Parameter, Tensor], None]


class Family:
    """A model with its tokenizer. `labels` is the union of the stream's label texts, in order of first appearance."""

    module: nn.Module
    generates = False
    has_head = False
    # whether the tokenizer puts its own tokens around a text
    adds_special_tokens = True
    objectives: ClassVar[frozenset[Objective]] = frozenset({"answer"})
    # Of a family that learns from corpora: the tokens of a block, and the token behind each document
    block_length: int
    document_end: int

    def __init__(self, source: ModelSource, config: ModelConfig, labels: Sequence[str], seed: int) -> None:
        self.source = source
        self.config = config
        self.labels = tuple(labels)
        self.seed = seed
        self.tokenizer = load_tokenizer(source, config)
        self.pad = self.tokenizer.pad_token_id
        self.num_labels_seen = len(self.labels)
        self.num_old_classes: int | None = None

    def at_task(self, before: int, now: int) -> None:
        """Note how many labels the earlier tasks had, and how many there are with the one that is trained now."""
        self.num_labels_seen = now

    def head(self) -> list[nn.Parameter]:
        """Parameters that belong to no pretrained layer and train under every tuning method."""
        return []

    def label_units(self) -> list[nn.Parameter]:
        """Those of the head's parameters that have a row for each label."""
        return []

    def features(self, task: Task, examples: Sequence[Example]) -> list[Feature]:
        """Token ids of every example."""
        raise NotImplementedError

    def features_of(self, task: Task, split: Split) -> Sequence[Feature]:
        """Token ids of every example of a split; of a corpus, of every block."""
        if not isinstance(task, Corpus):
            return self.features(task, task.read(split))
        packer = Packer(self.tokenizer, self.document_end, self.block_length)
        return self.blocks(packer.packed(task.split_hash(split), lambda: task.unchanged_documents(split)))

    def blocks(self, tokens: PackedTokens) -> Sequence[Feature]:
        """The blocks of a packed corpus; of a family that learns from corpora."""
        raise NotImplementedError

    def drawn(self, features: Sequence[Feature], task: int, epoch: int) -> Sequence[Feature]:
        """Examples as they are trained on in an epoch of a task, whatever they were drawn for before."""
        return features

    def class_index(self, task: Task, example: Example) -> int:
        """Which label of the stream an example has; NO_CLASS where its task has no label set, or is of another stream."""
        is_of_another_stream = example.prompt is not None and example.label not in self.labels
        if not task.labels or is_of_another_stream:
            return NO_CLASS
        return self.labels.index(example.label)

    def length(self, feature: Feature) -> int:
        """How many tokens the longest stream of an example has, by which it is padded."""
        return len(feature["source"])

    def loss_terms(self, feature: Feature) -> int:
        """What the loss is averaged over: the example's label tokens, or the example itself."""
        return 1

    def collate(self, features: Sequence[Feature]) -> Batch:
        """One padded batch on the CPU."""
        raise NotImplementedError

    def forward(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """(summed loss, logits [N, K] that it compares with `batch.answer_tokens()`).

        N counts answer tokens, or examples for a classifier; K is the vocabulary or the labels. `module` is this family's,
        perhaps wrapped for several workers.
        """
        raise NotImplementedError

    def answers(self, task: Task, features: Sequence[Feature], device: torch.device) -> list[Answer]:
        """The answer to each example."""
        raise NotImplementedError

    def read(self, features: Sequence[Feature], device: torch.device) -> Any:
        """What is left of the prompts when they are read once, for `answer_losses`; of a model that writes its answers."""
        raise NotImplementedError

    def answer_losses(self, prompts: Any, answers: Sequence[Sequence[int]]) -> Tensor:
        """[B]: -log p of each answer, all of its tokens and the end, given its prompt; in float32 at least."""
        raise NotImplementedError

    def embed(self, batch: Batch) -> Tensor:
        """[B, d]: the mean over a text's tokens of the last hidden states, at length 1. The answer's tokens do not count."""
        module: Any = self.module
        if module.config.is_encoder_decoder:
            backbone = module.get_encoder()
        else:
            backbone = module.base_model
        inputs = {"input_ids": batch.source.ids, "attention_mask": batch.source.mask}
        hidden = run_part(module, backbone, inputs).last_hidden_state
        return mean_of_tokens(hidden, batch.text_mask())

    def best_labels(self, task: Task, scores_BK: Tensor) -> list[Answer]:
        """For each example the label of highest score, and the one among the task's options.

        Raises ValueError where the task has no label set.
        """
        if not task.labels:
            raise ValueError(f"task {task.name!r} has no label set, so its answers cannot be chosen among labels")
        options = torch.tensor(list(map(self.labels.index, task.labels)), device=scores_BK.device)
        overall = scores_BK.argmax(1).tolist()
        among_options = options[scores_BK[:, options].argmax(1)].tolist()
        answers: list[Answer] = []
        for best, best_option in zip(overall, among_options, strict=True):
            answers.append((self.labels[best], self.labels[best_option]))
        return answers

    def use_text(self, task: Task, example: Example) -> Prompt:
        """What the model reads: the prompt, or the bare text."""
        wants_prompt = self.config.input == "prompt" or (self.config.input == "auto" and self.generates)
        if wants_prompt:
            return example.prompt or task.prompt(example.text)
        return Prompt("", example.text, "")

    def load_weights(self, weights: Mapping[str, Tensor], write: WriteRows) -> None:
        """Take over trained weights by parameter name. Raises ValueError where they are not this model's.

        `write(parameter, rows)` puts rows into the first ones of a parameter, of which a worker may hold a part only.
        """
        parameters = dict(self.module.named_parameters())
        for name, saved in weights.items():
            if name not in parameters or parameters[name].shape[1:] != saved.shape[1:]:
                raise ValueError(
                    f"checkpoint has weight {name!r} of shape {tuple(saved.shape)}, which the model has not"
                )
            count = self.units_to_load(name, saved)
            write(parameters[name], saved[:count])

    def units_to_load(self, name: str, saved: Tensor) -> int:
        """How many leading output units of a saved weight are the model's own: all."""
        return len(saved)

    def encode_texts(self, task: Task, examples: Sequence[Example]) -> list[list[int]]:
        """Token ids of what the model reads of each example."""
        prompts = []
        for example in examples:
            prompts.append(self.use_text(task, example))
        return self.encode(prompts)

    def encode(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Token ids of at most max_source; where that is too little, the text between prefix and suffix is shortened."""
        limit = self.config.max_source
        encoded = self._ids(list(map(str, prompts)))
        for i, prompt in enumerate(prompts):
            if len(encoded[i]) > limit:
                encoded[i] = self._shorten(prompt, limit)
        return encoded

    def _ids(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=self.adds_special_tokens).input_ids
        return ids

    def _shorten(self, prompt: Prompt, limit: int) -> list[int]:
        """Cut the text at a token's end until the whole fits; only then, if that is not enough, cut the whole."""
        offsets = self.tokenizer(prompt.text, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
        keep = min(len(offsets), limit)
        while True:
            text = ""
            if keep:
                text = prompt.text[: offsets[keep - 1][1]]
            (ids,) = self._ids([prompt.prefix + text + prompt.suffix])
            if len(ids) <= limit or not keep:
                return ids[:limit]
            # tokens at the seams may join or part, so the length is measured again
            keep = max(0, keep - (len(ids) - limit))


def run_part(model: nn.Module, part: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    """What a part of a model gives. A sharded model has whole weights only while it is called itself, so it calls the part."""
    if hasattr(model, "run_part"):
        return model.run_part(part, inputs)  # type: ignore[operator]
    return part(**inputs)


def mean_of_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """[B, d], of length 1, from [B, S, d] and [B, S]; in float32 at least."""
    hidden = at_least_float32(hidden)
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return F.normalize((hidden * weights).sum(1) / weights.sum(1).clamp(min=1), dim=1)


def summed_cross_entropy(logits_NK: Tensor, labels_N: Tensor) -> Tensor:
    """Cross-entropy summed over all answers, in float32 at least."""
    return F.cross_entropy(at_least_float32(logits_NK), labels_N, ignore_index=IGNORED, reduction="sum")


def summed_by_example(logits_BLV: Tensor, labels_BL: Tensor) -> Tensor:
    """[B]: cross-entropy summed over the labels of each example, in float32 at least."""
    losses_BL = F.cross_entropy(
        at_least_float32(logits_BLV).transpose(1, 2), labels_BL, ignore_index=IGNORED, reduction="none"
    )
    return losses_BL.sum(1)


def column(features: Sequence[Feature], name: str) -> list[Any]:
    """One field of every feature."""
    return [feature[name] for feature in features]  # type: ignore[literal-required]
