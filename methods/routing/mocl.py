"""MoCL: an adapter for every task, mixed by how near the text is to each task's vector (arXiv 2404.00790).

Shapes: B examples, E adapters so far, d the width of the frozen model's states.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.adapters.adapter_per_task import AdapterPerTaskSettings
from methods.batch import Batch
from methods.routing.routed import RoutedAdapters
from methods.seam.card import ADAPTER_RATES, Card
from methods.seam.cost import Cost, ExtraPasses
from methods.shared.passes import evaluating, first
from methods.shared.tensors import type_beside


class MoclSettings(AdapterPerTaskSettings):
    """As LoRA's, for each of the adapters."""

    samples: int | None = Field(
        256, ge=1, description="training texts whose mean a task's vector starts from; none: all of them"
    )


class Mocl(Cost, RoutedAdapters):
    """Adapter of the text: sum over tasks k <= t of cos(q, v_k) B_k A_k, with q the frozen model's mean state of the text and
    v_k a trained vector of task k. Only v_t and the newest adapter train; nothing of old tasks is kept, and no task is named.

    Departures: the released code starts v_t at random; ours starts from the mean of q over the task's texts, which its
    option for prototypes takes as it is. We mix low-rank adapters, as its T5 and Llama runs do, of fixed rank.
    """

    Settings = MoclSettings
    card = Card(
        summary="a low-rank adapter for every task, mixed by the text's nearness to each task's vector",
        paper="2404.00790",
        needs=("boundaries",),
        memory="one adapter and one vector a task",
        space={"r": (4, 8, 16)},
        training_space={"lr": ADAPTER_RATES},
        per_task_weights="each task trains weights of its own, so there are no old ones to hold",
        no_corpora="it looks at a text apart from its answer, and a corpus has no answers",
    )

    def make_router(self) -> nn.Module:
        """The tasks' vectors."""
        router = nn.Module()
        router.add_module("vectors", nn.ParameterList())
        return router

    @property
    def vectors(self) -> Sequence[nn.Parameter]:
        """v_1 to v_E, each [d]."""
        return list(self.router.vectors)  # type: ignore[arg-type]

    def gates(self, embeds: Tensor, mask: Tensor, training: bool) -> Tensor:
        if not self.vectors:
            return embeds.new_zeros(len(embeds), 0)
        query_Bd = self.mean_states(embeds, mask)
        vectors_Ed = F.normalize(torch.stack(tuple(self.vectors)), dim=1)
        # products, not a matrix product, which autocast would take in bfloat16
        return (query_Bd.unsqueeze(1) * vectors_Ed).sum(2)

    def grow_router(self, tasks: int) -> None:
        size = int(self.reader.inner.config.hidden_size)
        present = list(self.vectors[:tasks])
        like = self.layers[0].base_layer.weight
        for _ in range(len(present), tasks):
            # before the task's texts were seen, no text is near to it
            present.append(nn.Parameter(torch.zeros(size, device=like.device, dtype=type_beside(like))))
        for vector in present:
            vector.requires_grad_(vector is present[-1])
        self.router.add_module("vectors", nn.ParameterList(present))

    @torch.no_grad()
    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        size = int(self.reader.inner.config.hidden_size)
        newest = self.vectors[-1]
        sum_d = torch.zeros(size, dtype=torch.float64, device=newest.device)
        with evaluating(model):
            for batch in first(batches, self.settings.samples):
                sum_d += self.embed(batch).double().sum(0)
        # the mean over workers of sums points where the mean over texts does
        mean_d = self.context.mean_over_workers(sum_d)
        newest.copy_(F.normalize(mean_d, dim=0))

    def extra_passes(self, task_id: int, size: int) -> ExtraPasses:
        """The query that is compared with the tasks' vectors. An encoder-decoder's is the encoder's, and counts as a whole."""
        return ExtraPasses(forward=1.0)
