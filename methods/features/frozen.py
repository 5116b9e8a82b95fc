"""What methods on a frozen model's features share: the sum and the number of each class's features.

Shapes: B examples, d the width of the features, K labels so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from methods.base import Context, State, TuningMethod


class FrozenFeatures(TuningMethod):
    """A tuning method that leaves the model as it is and answers by features, the model's unit-length mean states of texts.

    Of each class it keeps the sum and the number of its features, so neither the order of the tasks nor the number of
    workers matters to them. A subclass says in `after_task` what else it makes of a task, and answers by `feature_scores`.
    """

    trains_by_gradient = False

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings, context)
        # float64: the same sums to the last bit that matters, in whatever order tasks and workers add to them
        self.sums_Kd = torch.zeros(0, 0, dtype=torch.float64)
        self.counts_K = torch.zeros(0, dtype=torch.float64)

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        """Freeze everything, the head too."""
        return model.requires_grad_(False)

    @staticmethod
    def width(model: nn.Module) -> int:
        """The width of the model's states."""
        return int(model.config.hidden_size)  # type: ignore[union-attr,arg-type]

    @staticmethod
    def zeros(model: nn.Module, *shape: int) -> Tensor:
        """Zeros in float64 on the model's device."""
        return torch.zeros(shape, dtype=torch.float64, device=next(model.parameters()).device)

    def add(self, sums_Kd: Tensor, counts_K: Tensor) -> None:
        """Add a task's sums and counts, the same on every worker, with a row for each label so far."""
        num_old = len(self.counts_K)
        if num_old:
            # a checkpoint lies on the CPU
            sums_Kd[:num_old] += self.sums_Kd.to(sums_Kd.device)
            counts_K[:num_old] += self.counts_K.to(counts_K.device)
        self.sums_Kd = sums_Kd
        self.counts_K = counts_K

    def class_scores(self, embedded_Bd: Tensor) -> Tensor:
        """[B, K]: a class without examples never wins."""
        if not len(self.counts_K):
            return embedded_Bd.new_zeros(len(embedded_Bd), 0)
        # scores lie close together, and autocast would compute them in bfloat16; it leaves float64 alone
        scores_BK = self.feature_scores(embedded_Bd.double())
        return scores_BK.masked_fill(self.counts_K.to(scores_BK.device) == 0, -torch.inf)

    def feature_scores(self, features_Bd: Tensor) -> Tensor:
        """[B, K]: the scores of features in float64, whatever a class without examples gets."""
        raise NotImplementedError

    def state_dict(self) -> State:
        if not len(self.counts_K):
            return {}
        return {"sums": self.sums_Kd, "counts": self.counts_K}

    def load_state_dict(self, state: State) -> None:
        self.sums_Kd = state["sums"]
        self.counts_K = state["counts"]
