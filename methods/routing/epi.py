"""EPI: an adapter for every task, and the nearest task's one for every input (ACL 2023, long 612).

Shapes: B examples, T tasks so far, d the width of the frozen model's states.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.adapters.adapter_per_task import AdapterPerTaskSettings
from methods.base import Context, State
from methods.batch import Batch
from methods.routing.routed import RoutedAdapters
from methods.seam.card import ADAPTER_RATES, Card
from methods.shared.passes import evaluating


class EpiSettings(AdapterPerTaskSettings):
    """As LoRA's, for each of the adapters."""

    shrinkage: float = Field(
        0.01, gt=0, le=1, description="share of the mean variance in the covariance, which few texts cannot fill"
    )


def mahalanobis(query_Bd: Tensor, means_Td: Tensor, precision_dd: Tensor) -> Tensor:
    """[B, T]: (q - mu_t)^T P (q - mu_t)."""
    difference_BTd = query_Bd.unsqueeze(1) - means_Td
    return torch.einsum("btd,de,bte->bt", difference_BTd, precision_dd, difference_BTd)


def precision(scatter_dd: Tensor, count: float, shrinkage: float) -> Tensor:
    """The inverse of (1 - s) C + s mean(diag C) I, with the covariance C = scatter / count and s the shrinkage."""
    covariance_dd = scatter_dd / count
    variance = covariance_dd.diagonal().mean()
    identity_dd = torch.eye(len(covariance_dd), dtype=covariance_dd.dtype, device=covariance_dd.device)
    return torch.linalg.inv((1 - shrinkage) * covariance_dd + shrinkage * variance * identity_dd)


class Epi(RoutedAdapters):
    """One adapter a task, trained on its task alone. A text is answered by the adapter of the task whose Gaussian is nearest:
    argmin_t (q - mu_t)^T C^-1 (q - mu_t), with q the frozen model's mean state of the text, mu_t the mean over task t's
    training texts, and C the covariance around these means, shared by all tasks.

    No task is named when answering, and nothing of old tasks is kept but their means and one matrix. Departures: the paper
    trains prefixes, we low-rank adapters, as for all methods here; q is the mean over tokens at length 1 (the paper's: of the
    class token, or the mean); C is shrunk towards its mean variance, since a task may have fewer texts than d.
    """

    Settings = EpiSettings
    card = Card(
        summary="a low-rank adapter for every task; each text goes to the adapter of the nearest task",
        needs=("boundaries",),
        memory="one adapter and one mean a task, and one covariance",
        space={"r": (4, 8, 16), "shrinkage": (0.001, 0.01, 0.1)},
        training_space={"lr": ADAPTER_RATES},
        per_task_weights="each task trains weights of its own, so there are no old ones to hold",
        no_corpora="it looks at a text apart from its answer, and a corpus has no answers",
    )

    def __init__(self, settings: EpiSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.means: list[Tensor] = []
        self.counts: list[float] = []
        self.scatter_dd: Tensor | None = None
        self.precision_dd: Tensor | None = None

    def gates(self, embeds: Tensor, mask: Tensor, training: bool) -> Tensor:
        count = self.num_adapters
        if training or not self.means:
            newest = torch.full((len(embeds),), count - 1, device=embeds.device)
        else:
            newest = self.nearest(self.mean_states(embeds, mask))
        if not count:
            return embeds.new_zeros(len(embeds), 0)
        return F.one_hot(newest, count).to(embeds.dtype)

    def nearest(self, query_Bd: Tensor) -> Tensor:
        """[B]: the task whose Gaussian is nearest to each query."""
        assert self.scatter_dd is not None
        if self.precision_dd is None:
            inverse_dd = precision(self.scatter_dd.cpu(), sum(self.counts), self.settings.shrinkage)
            self.precision_dd = inverse_dd.to(query_Bd.device)
        means_Td = torch.stack(self.means).to(query_Bd.device)
        # float64, which autocast leaves alone: distances to tasks that are alike lie close together
        return mahalanobis(query_Bd.double(), means_Td, self.precision_dd).argmin(1)

    @torch.no_grad()
    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        size = int(self.reader.inner.config.hidden_size)
        device = next(model.parameters()).device
        # of all workers together: sums of count, of states and of their products
        count_1 = torch.zeros(1, dtype=torch.float64, device=device)
        sum_d = torch.zeros(size, dtype=torch.float64, device=device)
        product_dd = torch.zeros(size, size, dtype=torch.float64, device=device)
        with evaluating(model):
            for batch in batches:
                query_Bd = self.embed(batch).double()
                count_1 += len(query_Bd)
                sum_d += query_Bd.sum(0)
                product_dd += query_Bd.T @ query_Bd
        for total in (count_1, sum_d, product_dd):
            total.copy_(self.context.sum_over_workers(total))
        count = float(count_1)
        mean_d = sum_d / count
        scatter_dd = product_dd - count * torch.outer(mean_d, mean_d)
        if self.scatter_dd is not None:
            scatter_dd = self.scatter_dd.to(device) + scatter_dd
        self.scatter_dd = scatter_dd
        self.means.append(mean_d)
        self.counts.append(count)
        self.precision_dd = None

    def state_dict(self) -> State:
        if self.scatter_dd is None:
            return {}
        return {"means": torch.stack(self.means), "counts": self.counts, "scatter": self.scatter_dd}

    def load_state_dict(self, state: State) -> None:
        self.means = list(state["means"])
        self.counts = list(state["counts"])
        self.scatter_dd = state["scatter"]
        self.precision_dd = None
