"""Nearest mean classifier on frozen features (arXiv 2210.04428): no training, and often hard to beat."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.batch import Batch
from methods.features.frozen import FrozenFeatures
from methods.seam.card import Card
from methods.shared.passes import evaluating


class Nmc(FrozenFeatures):
    """The class whose mean embedding is nearest by cosine; embeddings are mean-pooled last hidden states, at length 1.

    The model stays as it is. Class means are sums and counts, so neither the order of the tasks nor the number of workers
    matters, and nothing is forgotten: a stream on which this comes near to the best method is a weak test of methods. Of a
    decoder the text's states count and not the answer's, of an encoder-decoder those of the encoder.
    """

    card = Card(
        summary="nearest class mean of the frozen model's embeddings",
        paper="2210.04428",
        memory="one mean for each class",
        training_space={},
        no_output_units="it trains nothing",
        per_task_weights="it trains nothing",
        no_corpora="it learns classes, and the documents of a corpus have no label",
    )

    @torch.no_grad()
    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        """Add the task's examples to the sums of their classes."""
        num_classes = self.context.labels[task_id]
        sums_Kd = self.zeros(model, num_classes, self.width(model))
        counts_K = self.zeros(model, num_classes)
        with evaluating(model):
            for batch in batches:
                sums_Kd.index_add_(0, batch.classes, self.context.embed(batch).double())
                counts_K += torch.bincount(batch.classes, minlength=num_classes)
        self.add(self.context.sum_over_workers(sums_Kd), self.context.sum_over_workers(counts_K))

    def feature_scores(self, features_Bd: Tensor) -> Tensor:
        """[B, K] cosines with the means of the classes."""
        # a sum points where the mean does, so no division by the counts is needed
        means_Kd = F.normalize(self.sums_Kd, dim=1).to(features_Bd.device)
        return features_Bd @ means_Kd.T
