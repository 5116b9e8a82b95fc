"""How each family of models reads examples, computes its loss, and answers.

Shapes: B examples, S source tokens, D target tokens, V vocabulary, K labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods import Batch, at_least_float32
from orchestrator.config import ModelConfig
from orchestrator.models import ModelSource, load_module, load_tokenizer
from streams import Example, Prompt, Task, normalise_answer

Feature = Mapping[str, Any]
IGNORED = -100


class Family:
    """A model with its tokenizer. `labels` is the union of the stream's label texts, in order of first appearance."""

    module: nn.Module

    def __init__(self, source: ModelSource, config: ModelConfig, labels: Sequence[str], seed: int) -> None:
        self.source, self.config, self.labels, self.seed = source, config, tuple(labels), seed
        self.tokenizer = load_tokenizer(source, config)
        self.pad = self.tokenizer.pad_token_id
        self.seen = len(self.labels)
        self.old_columns: int | None = None

    def at_task(self, before: int, now: int) -> None:
        """Note how many labels the earlier tasks had, and how many there are with the one that is trained now."""
        self.seen = now

    def head(self) -> list[nn.Parameter]:
        """Parameters that belong to no pretrained layer and train under every regime."""
        return []

    def features(self, task: Task, examples: Sequence[Example]) -> list[Feature]:
        """Token ids of every example."""
        raise NotImplementedError

    def units(self, feature: Feature) -> int:
        """What the loss is averaged over: the example's label tokens, or the example itself."""
        return 1

    def collate(self, features: Sequence[Feature]) -> Batch:
        """One padded batch on the CPU. Its masks have distinct shapes (see methods.base.Batch)."""
        raise NotImplementedError

    def forward(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """(summed loss, logits); `module` is this family's, perhaps wrapped for several workers."""
        raise NotImplementedError

    def answers(self, task: Task, features: Sequence[Feature], device: torch.device) -> list[tuple[str, str | None]]:
        """For each example the answer, and the answer among the task's options alone (None: does not apply)."""
        raise NotImplementedError

    def embed(self, batch: Batch) -> Tensor:
        """[B, d]: the mean over a text's tokens of the last hidden states, at length 1. The answer's tokens do not count."""
        module: Any = self.module
        backbone = module.get_encoder() if module.config.is_encoder_decoder else module.base_model
        hidden = backbone(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        mask = batch["attention_mask"]
        if batch["labels"].shape == mask.shape:  # a decoder reads text and answer in one row
            mask = mask * (batch["labels"] == IGNORED)
        return mean_of_tokens(hidden, mask)

    def best_labels(self, task: Task, scores_BK: Tensor) -> list[tuple[str, str | None]]:
        """For each example the label of highest score, and the one among the task's options."""
        options = torch.tensor([self.labels.index(label) for label in task.labels], device=scores_BK.device)
        overall = scores_BK.argmax(1).tolist()
        among = options[scores_BK[:, options].argmax(1)].tolist()
        return [(self.labels[i], self.labels[j]) for i, j in zip(overall, among, strict=True)]

    def use_text(self, task: Task, example: Example) -> Prompt:
        """What the model reads: the prompt, or the bare text."""
        wants_prompt = self.config.input == "prompt" or (self.config.input == "auto" and self.generates)
        return task.prompt(example.text) if wants_prompt else Prompt("", example.text, "")

    generates = False

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take over trained weights by parameter name. Raises ValueError where they are not this model's."""
        parameters = dict(self.module.named_parameters())
        for name, saved in weights.items():
            if name not in parameters or parameters[name].shape[1:] != saved.shape[1:]:
                raise ValueError(
                    f"checkpoint has weight {name!r} of shape {tuple(saved.shape)}, which the model has not"
                )
            rows = self.rows_to_load(name, saved)
            parameters[name][:rows] = saved[:rows].to(parameters[name].device)

    def rows_to_load(self, name: str, saved: Tensor) -> int:
        """How many leading rows of a saved weight are the model's own: all."""
        return len(saved)

    def encode(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Token ids of at most max_source; where that is too little, the text between prefix and suffix is shortened."""
        limit = self.config.max_source
        encoded: list[list[int]] = self.tokenizer([str(p) for p in prompts]).input_ids
        return [ids if len(ids) <= limit else self._shorten(p, limit) for ids, p in zip(encoded, prompts, strict=True)]

    def _shorten(self, prompt: Prompt, limit: int) -> list[int]:
        """Cut the text at a token's end until the whole fits; only then, if that is not enough, cut the whole."""
        offsets = self.tokenizer(prompt.text, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
        keep = min(len(offsets), limit)
        while True:
            text = prompt.text[: offsets[keep - 1][1]] if keep else ""
            ids: list[int] = self.tokenizer(prompt.prefix + text + prompt.suffix).input_ids
            if len(ids) <= limit or not keep:
                return ids[:limit]
            keep = max(0, keep - (len(ids) - limit))


def pad_right(rows: Sequence[Sequence[int]], value: int, width: int | None = None) -> Tensor:
    """[B, longest] (or [B, width]) with `value` behind the shorter rows."""
    longest = width or max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


def pad_left(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """[B, longest] with `value` before the shorter rows."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*[value] * (longest - len(row)), *row] for row in rows])


def lengths_mask(rows: Sequence[Sequence[int]], width: int) -> Tensor:
    """[B, width]: 1 on each row's own tokens."""
    return (torch.arange(width)[None, :] < torch.tensor([len(row) for row in rows])[:, None]).long()


def mean_of_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """[B, d], of length 1, from [B, S, d] and [B, S]; in float32 at least."""
    hidden, mask = at_least_float32(hidden), mask.unsqueeze(-1).to(at_least_float32(hidden).dtype)
    return F.normalize((hidden * mask).sum(1) / mask.sum(1).clamp(min=1), dim=1)


def summed_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy summed over all positions whose label is not IGNORED, in float32 at least."""
    return F.cross_entropy(
        at_least_float32(logits).flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )


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

    def units(self, feature: Feature) -> int:
        return len(feature["target"])

    def collate(self, features: Sequence[Feature]) -> Batch:
        sources, targets = [f["source"] for f in features], [f["target"] for f in features]
        source = pad_right(sources, self.pad)
        width = max(len(t) for t in targets)
        width += width == source.shape[1]  # the two masks must not have the same shape
        return {
            "input_ids": source,
            "attention_mask": lengths_mask(sources, source.shape[1]),
            "labels": pad_right(targets, IGNORED, width),
            "decoder_attention_mask": lengths_mask(targets, width),
            "classes": torch.tensor([f["class"] for f in features]),
        }

    def forward(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        shifted = self.module.prepare_decoder_input_ids_from_labels(labels=batch["labels"])  # type: ignore[operator]
        logits = module(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], decoder_input_ids=shifted
        ).logits
        return summed_cross_entropy(logits, batch["labels"]), logits

    def answers(self, task: Task, features: Sequence[Feature], device: torch.device) -> list[tuple[str, str | None]]:
        batch = self.collate(features)
        return self.generate(task, batch["input_ids"].to(device), batch["attention_mask"].to(device), skip=0)

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
        return {
            "input_ids": ids,
            "attention_mask": lengths_mask(rows, ids.shape[1]),
            "labels": pad_right(labels, IGNORED),
            "classes": torch.tensor([f["class"] for f in features]),
        }

    def forward(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return summed_cross_entropy(logits[:, :-1], batch["labels"][:, 1:]), logits

    def answers(self, task: Task, features: Sequence[Feature], device: torch.device) -> list[tuple[str, str | None]]:
        rows = [f["source"] for f in features]
        ids = pad_left(rows, self.pad).to(device)
        mask = pad_left([[1] * len(row) for row in rows], 0).to(device)
        return self.generate(task, ids, mask, skip=ids.shape[1])

    def _longest_answer(self, task: Task) -> int:
        texts = [" " + label for label in task.labels]
        longest = max(len(ids) for ids in self.tokenizer(texts, add_special_tokens=False).input_ids)
        return min(self.config.max_target, longest + 2)


class EncoderWithHead(Family):
    """BERT, RoBERTa: one classification head over the union of the stream's labels.

    Each label's row of the head starts from its own seeded values and, until a task with that label is trained, is
    neither part of the softmax nor moved. So a stream that grows at its end leaves its first tasks as they were.
    """

    def __init__(self, source: ModelSource, config: ModelConfig, labels: Sequence[str], seed: int) -> None:
        from transformers import AutoModelForSequenceClassification

        super().__init__(source, config, labels, seed)
        self.module = load_module(source, config, AutoModelForSequenceClassification, seed, num_labels=len(labels))
        self.index = {label: i for i, label in enumerate(self.labels)}
        self.output = self._output_layer()
        self._seed_rows()
        self.own = self._outside_backbone()  # found now: what a method adds to the model later is no head

    def at_task(self, before: int, now: int) -> None:
        self.seen, self.old_columns = now, before

    def _output_layer(self) -> nn.Linear:
        linear = [m for m in self.module.modules() if isinstance(m, nn.Linear) and m.out_features == len(self.labels)]
        return linear[-1]

    @torch.no_grad()
    def _seed_rows(self) -> None:
        from methods import generator

        deviation = getattr(self.module.config, "initializer_range", 0.02)
        for label, i in self.index.items():
            row = torch.randn(self.output.in_features, generator=generator(self.seed, "head", label))
            self.output.weight[i] = row * deviation
        if self.output.bias is not None:
            self.output.bias.zero_()

    def rows_to_load(self, name: str, saved: Tensor) -> int:
        """The labels that both streams have; the order of first appearance makes them the same rows."""
        return min(len(saved), len(dict(self.module.named_parameters())[name]))

    def head(self) -> list[nn.Parameter]:
        """All of the classifier: its last layer and what new layers stand before it."""
        return self.own

    def _outside_backbone(self) -> list[nn.Parameter]:
        backbone = self.module.base_model
        assert isinstance(backbone, nn.Module)
        base = {id(p) for p in backbone.parameters()}
        return [p for p in self.module.parameters() if id(p) not in base]

    def features(self, task: Task, examples: Sequence[Example]) -> list[Feature]:
        sources = self.encode([self.use_text(task, e) for e in examples])
        return [{"source": s, "label": self.labels.index(e.label)} for s, e in zip(sources, examples, strict=True)]

    def collate(self, features: Sequence[Feature]) -> Batch:
        sources = [f["source"] for f in features]
        ids = pad_right(sources, self.pad)
        return {
            "input_ids": ids,
            "attention_mask": lengths_mask(sources, ids.shape[1]),
            "labels": torch.tensor([f["label"] for f in features]),
            "classes": torch.tensor([f["label"] for f in features]),
        }

    def forward(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits_BK = module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, : self.seen]
        return summed_cross_entropy(logits_BK, batch["labels"]), logits_BK

    def all_logits(self, features: Sequence[Feature], device: torch.device) -> Tensor:
        """[B, K] over the labels of the whole stream."""
        batch = self.collate(features)
        return self.module(
            input_ids=batch["input_ids"].to(device), attention_mask=batch["attention_mask"].to(device)
        ).logits

    def answers(self, task: Task, features: Sequence[Feature], device: torch.device) -> list[tuple[str, str | None]]:
        return self.best_labels(task, self.all_logits(features, device).float())


class Similarity(nn.Module):
    """Scores options by the scaled cosine of mean-pooled encodings (Sentence-BERT, arXiv 1908.10084)."""

    SCALE = 20.0  # of the published training objective of these sentence encoders

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = encoder.config

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[B, d], of length 1."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return mean_of_tokens(hidden, attention_mask)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, option_ids: Tensor, option_mask: Tensor) -> Tensor:
        """[B, K] logits."""
        text_Bd, option_Kd = self.embed(input_ids, attention_mask), self.embed(option_ids, option_mask)
        with torch.autocast(text_Bd.device.type, enabled=False):  # cosines lie close together, too close for bfloat16
            return self.SCALE * text_Bd @ option_Kd.T


class EncoderBySimilarity(EncoderWithHead):
    """Sentence encoders: the text and each label text are encoded by the same model; the nearest label wins. No head."""

    module: Similarity

    def __init__(self, source: ModelSource, config: ModelConfig, labels: Sequence[str], seed: int) -> None:
        from transformers import AutoModel

        Family.__init__(self, source, config, labels, seed)
        self.module = Similarity(load_module(source, config, AutoModel, seed, add_pooling_layer=False))
        self.option_ids: list[list[int]] = self.tokenizer(list(self.labels)).input_ids

    def head(self) -> list[nn.Parameter]:
        return []

    def embed(self, batch: Batch) -> Tensor:
        return self.module.embed(batch["input_ids"], batch["attention_mask"])

    def collate(self, features: Sequence[Feature]) -> Batch:
        batch = super().collate(features)
        options = self.option_ids[: self.seen]
        width = max(len(ids) for ids in options)
        if (len(options), width) == tuple(batch["input_ids"].shape):
            width += 1  # the two masks must not have the same shape
        batch["option_ids"] = pad_right(options, self.pad, width)
        batch["option_mask"] = lengths_mask(options, width)
        return batch

    def forward(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        names = ("input_ids", "attention_mask", "option_ids", "option_mask")
        logits_BK = module(**{name: batch[name] for name in names})
        return summed_cross_entropy(logits_BK, batch["labels"]), logits_BK

    def all_logits(self, features: Sequence[Feature], device: torch.device) -> Tensor:
        seen, self.seen = self.seen, len(self.labels)
        batch = self.collate(features)
        self.seen = seen
        names = ("input_ids", "attention_mask", "option_ids", "option_mask")
        return self.module(**{name: batch[name].to(device) for name in names})


def load_family(source: ModelSource, config: ModelConfig, labels: Sequence[str], seed: int) -> Family:
    """The family that fits the model and the scoring asked for. Raises ValueError where they do not go together."""
    return family_of(source, config)(source, config, labels, seed)


def family_of(source: ModelSource, config: ModelConfig) -> type[Family]:
    """As `load_family`, without loading weights."""
    scoring = config.scoring
    if source.kind != "encoder":
        if scoring not in ("auto", "generate"):
            raise ValueError(f"model.scoring: {scoring!r} goes with encoders; {config.name!r} is an {source.kind}")
        return EncoderDecoder if source.kind == "encoder-decoder" else Decoder
    if scoring == "generate":
        raise ValueError(f"model.scoring: {config.name!r} is an encoder and cannot generate; allowed: head, similarity")
    if scoring == "similarity" or (scoring == "auto" and source.sentence_encoder):
        return EncoderBySimilarity
    return EncoderWithHead


def is_correct(answer: str, label: str) -> bool:
    """Exact match after the published normalisation."""
    return normalise_answer(answer) == normalise_answer(label)
