"""Encoders with a classification head: one output unit for each label of the stream."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from methods import Batch, generator
from orchestrator.config.model import ModelConfig
from orchestrator.models.family import Answer, Family, Feature, column, summed_cross_entropy
from orchestrator.models.loading import load_module
from orchestrator.models.padding import token_stream
from orchestrator.models.source import ModelSource
from streams import Example, Task


class EncoderWithHead(Family):
    """BERT, RoBERTa: one classification head over the union of the stream's labels.

    Each label's unit of the head starts from its own seeded values and, until a task with that label is trained, is
    neither part of the softmax nor moved. So a stream that grows at its end leaves its first tasks as they were.
    """

    has_head = True

    def __init__(self, source: ModelSource, config: ModelConfig, labels: Sequence[str], seed: int) -> None:
        from transformers import AutoModelForSequenceClassification

        super().__init__(source, config, labels, seed)
        self.module = load_module(source, config, AutoModelForSequenceClassification, seed, num_labels=len(labels))
        self.output = self._output_layer()
        self._seed_output_units()
        # found now: what a method adds to the model later is no head
        self.head_parameters = self._outside_backbone()

    def at_task(self, before: int, now: int) -> None:
        self.num_labels_seen = now
        self.num_old_classes = before

    def _output_layer(self) -> nn.Linear:
        """The last linear layer with a unit for each label; a RoBERTa's head has another linear layer before it."""
        found = None
        for module in self.module.modules():
            if isinstance(module, nn.Linear) and module.out_features == len(self.labels):
                found = module
        assert found is not None
        return found

    @torch.no_grad()
    def _seed_output_units(self) -> None:
        """Draw each label's unit from the label itself: what it starts from depends on no other label of the stream.

        transformers draws the whole head at once, so a longer stream would have other values in every unit.
        """
        deviation = getattr(self.module.config, "initializer_range", 0.02)
        for i, label in enumerate(self.labels):
            unit = torch.randn(self.output.in_features, generator=generator(self.seed, "head", label))
            self.output.weight[i] = unit * deviation
        if self.output.bias is not None:
            self.output.bias.zero_()

    def units_to_load(self, name: str, saved: Tensor) -> int:
        """How many labels both streams have.

        A checkpoint may come from a stream with fewer tasks or more. Labels are in order of first appearance, so those of
        the tasks that both have come first and are the same units; the others are untrained in both.
        """
        return min(len(saved), len(dict(self.module.named_parameters())[name]))

    def head(self) -> list[nn.Parameter]:
        """All of the classifier: its last layer and what new layers stand before it."""
        return self.head_parameters

    def label_units(self) -> list[nn.Parameter]:
        return list(self.output.parameters())

    def _outside_backbone(self) -> list[nn.Parameter]:
        backbone = self.module.base_model
        assert isinstance(backbone, nn.Module)
        pretrained = set(map(id, backbone.parameters()))
        found = []
        for parameter in self.module.parameters():
            if id(parameter) not in pretrained:
                found.append(parameter)
        return found

    def features(self, task: Task, examples: Sequence[Example]) -> list[Feature]:
        """Token ids of every example. Raises ValueError for a task without a label set."""
        if not task.labels:
            raise ValueError(
                f"task {task.name!r} has no label set, and {self.config.name!r} is an encoder, which can only choose "
                f"among labels; take a model that generates"
            )
        found: list[Feature] = []
        for source, example in zip(self.encode_texts(task, examples), examples, strict=True):
            found.append({"source": source, "target": [], "class_index": self.class_index(task, example)})
        return found

    def collate(self, features: Sequence[Feature]) -> Batch:
        classes = torch.tensor(column(features, "class_index"))
        return Batch(source=token_stream(column(features, "source"), self.pad), labels=classes, classes=classes)

    def forward(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits_BK = module(input_ids=batch.source.ids, attention_mask=batch.source.mask).logits
        # Labels of later tasks do not compete: a softmax over them would push their units down before they are trained.
        # Labels of all earlier tasks do, as no one says later which task an example is of.
        logits_BK = logits_BK[:, : self.num_labels_seen]
        return summed_cross_entropy(logits_BK, batch.labels), logits_BK

    def all_logits(self, features: Sequence[Feature], device: torch.device) -> Tensor:
        """[B, K] over the labels of the whole stream."""
        source = token_stream(column(features, "source"), self.pad).to(device)
        return self.module(input_ids=source.ids, attention_mask=source.mask).logits

    def answers(self, task: Task, features: Sequence[Feature], device: torch.device) -> list[Answer]:
        return self.best_labels(task, self.all_logits(features, device).float())
