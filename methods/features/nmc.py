"""Nearest mean classifier on frozen features (arXiv 2210.04428): no training, and often hard to beat."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Context, Settings, State, TuningMethod
from methods.batch import Batch
from methods.seam.card import Card
from methods.shared.passes import evaluating


class Nmc(TuningMethod):
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
    )
    trains_by_gradient = False

    def __init__(self, settings: Settings, context: Context) -> None:
        super().__init__(settings, context)
        self.sums_Kd = torch.zeros(0, 0, dtype=torch.float64)
        self.counts_K = torch.zeros(0, dtype=torch.float64)

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        """Freeze everything, the head too."""
        return model.requires_grad_(False)

    @torch.no_grad()
    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        """Add the task's examples to the sums of their classes."""
        classes = self.context.labels[task_id]
        size = int(model.config.hidden_size)  # type: ignore[union-attr,arg-type]
        device = next(model.parameters()).device
        # float64: the same sums to the last bit that matters, in whatever order tasks and workers add to them
        sums_Kd = torch.zeros(classes, size, dtype=torch.float64, device=device)
        counts_K = torch.zeros(classes, dtype=torch.float64, device=device)
        with evaluating(model):
            for batch in batches:
                embedded_Bd = self.context.embed(batch).double()
                sums_Kd.index_add_(0, batch.classes, embedded_Bd)
                counts_K += torch.bincount(batch.classes, minlength=classes)
        self.sums_Kd = self._added(self.sums_Kd, sums_Kd)
        self.counts_K = self._added(self.counts_K, counts_K)

    def _added(self, total: Tensor, new: Tensor) -> Tensor:
        """What all workers have found in this task, and what earlier tasks had, of which there are fewer classes."""
        new.copy_(self.context.mean_over_workers(new) * self.context.workers)
        if len(total):
            new[: len(total)] += total.to(new.device)
        return new

    def class_scores(self, embedded_Bd: Tensor) -> Tensor:
        """[B, K] cosines with the means of the classes seen so far; a class without examples scores less than any cosine."""
        if not len(self.counts_K):
            return embedded_Bd.new_zeros(len(embedded_Bd), 0)
        seen = self.counts_K > 0
        # a sum points where the mean does, so no division by the counts is needed
        means_Kd = F.normalize(self.sums_Kd, dim=1).to(embedded_Bd.device)
        # cosines lie close together, and autocast would compute them in bfloat16; it leaves float64 alone
        cosines_BK = embedded_Bd.double() @ means_Kd.T
        return cosines_BK.masked_fill(~seen.to(embedded_Bd.device), -2.0)

    def state_dict(self) -> State:
        if not len(self.counts_K):
            return {}
        return {"sums": self.sums_Kd, "counts": self.counts_K}

    def load_state_dict(self, state: State) -> None:
        self.sums_Kd = state["sums"]
        self.counts_K = state["counts"]
