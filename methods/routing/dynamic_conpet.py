"""Dynamic ConPET: an adapter for every task, and a trained selector that gives every input its own (arXiv 2309.14763).

Shapes: B examples, T tasks so far, d the width of the frozen model's states.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.adapters.adapter_per_task import AdapterPerTaskSettings
from methods.adapters.moelora import gate
from methods.base import Context, State
from methods.batch import Batch
from methods.replay.memory import kept
from methods.routing.routed import RoutedAdapters
from methods.seam.card import ADAPTER_RATES, Card
from methods.shared.passes import evaluating


class DynamicConpetSettings(AdapterPerTaskSettings):
    """Defaults: the paper's rank 4 (alpha / r as `lora`'s) and one adapter an input."""

    r: int = Field(4, ge=1, description="rank")
    alpha: float = Field(16.0, gt=0, description="scale: the update is alpha / r times B A")
    top_k: int = Field(1, ge=1, description="adapters that act on an input")
    fraction: float = Field(
        0.02, gt=0, le=1, description="share of each task's examples that the selector is trained on"
    )
    ridge: float = Field(1e-3, gt=0, description="weight of the squares of the selector's weights in its loss")


def fit_selector(
    features: Sequence[Tensor], ridge: float, context: Context, max_iterations: int = 200
) -> tuple[Tensor, Tensor]:
    """(W [T, d], b [T]) of the softmax regression that tells tasks by their features, of which `features[t]` [n_t, d] holds
    this worker's.

    Minimises mean over tasks of the mean over the task's texts of -log softmax(W q + b)_t, plus ridge / 2 |W|^2: each task
    weighs the same, however many of its texts are kept. Float64 and a fixed order of steps, the same on every worker.
    """
    counts = []
    for of_task in features:
        count = torch.tensor([float(len(of_task))], dtype=torch.float64, device=of_task.device)
        counts.append(float(context.sum_over_workers(count)))
    size = features[0].shape[1]
    weight_Td = torch.zeros(len(features), size, dtype=torch.float64, device=features[0].device, requires_grad=True)
    bias_T = torch.zeros(len(features), dtype=torch.float64, device=features[0].device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight_Td, bias_T],
        max_iter=max_iterations,
        tolerance_grad=1e-9,
        # zero: torch's default would end at a loss that is flat, not at weights that are settled
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        own = (bias_T * 0).sum()
        for task, of_task in enumerate(features):
            targets = torch.full((len(of_task),), task, device=of_task.device)
            loss = F.cross_entropy(of_task @ weight_Td.T + bias_T, targets, reduction="sum")
            own = own + loss / (counts[task] * len(features))
        own.backward()
        total = context.sum_over_workers(own.detach())
        for parameter in (weight_Td, bias_T):
            assert parameter.grad is not None
            parameter.grad.copy_(context.sum_over_workers(parameter.grad))
        assert weight_Td.grad is not None
        weight_Td.grad.add_(ridge * weight_Td.detach())
        return total + ridge / 2 * weight_Td.detach().square().sum()

    with torch.enable_grad():
        optimizer.step(closure)
    return weight_Td.detach(), bias_T.detach()


class DynamicConpet(RoutedAdapters):
    """One adapter a task, trained on its task alone, and a selector softmax(W q + b) over the tasks, trained at each task's end
    on what is kept of all tasks so far; q is the frozen model's mean state of the text. The `top_k` adapters of highest score
    act on the text, weighed by the softmax of their scores.

    No task is named when answering. Departures: the paper's selector is a second adapter and is trained first; ours is linear
    on frozen features. It joins the label scores of the chosen modules; we add up the modules.
    """

    Settings = DynamicConpetSettings
    card = Card(
        summary="a low-rank adapter for every task, and a selector that is trained on old texts",
        paper="2309.14763",
        needs=("boundaries", "old data"),
        memory="one adapter a task, a linear selector, and `fraction` of each task's examples",
        kept_share="fraction",
        space={"r": (4, 8, 16), "top_k": (1, 2)},
        training_space={"lr": ADAPTER_RATES},
        per_task_weights="each task trains weights of its own, so there are no old ones to hold",
        no_corpora="it looks at a text apart from its answer, and a corpus has no answers",
    )

    def __init__(self, settings: DynamicConpetSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.weight_Td: Tensor | None = None
        self.bias_T: Tensor | None = None

    def gates(self, embeds: Tensor, mask: Tensor, training: bool) -> Tensor:
        count = self.num_adapters
        gates_BE = embeds.new_zeros(len(embeds), count)
        if not count:
            return gates_BE
        if training or self.weight_Td is None:
            gates_BE[:, -1] = 1.0
            return gates_BE
        scores_BT = self.scores(self.mean_states(embeds, mask))
        # an adapter that is being trained has no score yet
        gates_BE[:, : scores_BT.shape[1]] = gate(scores_BT, self.settings.top_k).to(gates_BE.dtype)
        return gates_BE

    def scores(self, query_Bd: Tensor) -> Tensor:
        """[B, T]: W q + b, in float64, which autocast leaves alone."""
        assert self.weight_Td is not None and self.bias_T is not None
        self.weight_Td = self.weight_Td.to(query_Bd.device)
        self.bias_T = self.bias_T.to(query_Bd.device)
        return query_Bd.double() @ self.weight_Td.T + self.bias_T

    @torch.no_grad()
    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        features = []
        device = next(model.parameters()).device
        size = int(self.reader.inner.config.hidden_size)
        with evaluating(model):
            for task in range(task_id + 1):
                examples = kept(self.context.seed, task, self.context.examples(task), self.settings.fraction)
                # a worker may have none of a small task's texts
                found = [torch.zeros(0, size, dtype=torch.float64, device=device)]
                for batch in self.context.batches(examples):
                    found.append(self.embed(batch).double())
                features.append(torch.cat(found))
        self.weight_Td, self.bias_T = fit_selector(features, self.settings.ridge, self.context)

    def state_dict(self) -> State:
        if self.weight_Td is None:
            return {}
        return {"weight": self.weight_Td, "bias": self.bias_T}

    def load_state_dict(self, state: State) -> None:
        self.weight_Td = state["weight"]
        self.bias_T = state["bias"]
