"""TODO orchestrator.models.encoder"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from methods import Batch, TokenStream
from orchestrator.config.model import ModelConfig
from orchestrator.models.family import Family, Feature, summed_cross_entropy
from orchestrator.models.loading import load_module
from orchestrator.models.padding import lengths_mask, pad_right
from orchestrator.models.source import ModelSource
from streams import Example, Task


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
        self.seen, self.num_old_classes = now, before

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
        return Batch(
            source=TokenStream(ids, lengths_mask(sources, ids.shape[1])),
            labels=torch.tensor([f["label"] for f in features]),
            classes=torch.tensor([f["label"] for f in features]),
        )

    def forward(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits_BK = module(input_ids=batch.source.ids, attention_mask=batch.source.mask).logits[:, : self.seen]
        return summed_cross_entropy(logits_BK, batch.labels), logits_BK

    def all_logits(self, features: Sequence[Feature], device: torch.device) -> Tensor:
        """[B, K] over the labels of the whole stream."""
        source = self.collate(features).source.to(device)
        return self.module(input_ids=source.ids, attention_mask=source.mask).logits

    def answers(self, task: Task, features: Sequence[Feature], device: torch.device) -> list[tuple[str, str | None]]:
        return self.best_labels(task, self.all_logits(features, device).float())
