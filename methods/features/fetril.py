"""FeTrIL: a linear classifier on frozen features, old classes standing in by moved features of new ones (arXiv 2211.13131).

Shapes: N examples of the task, M training points, d the width of the features, K labels so far, C those seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.base import Context, Settings, State
from methods.batch import Batch
from methods.features.frozen import FrozenFeatures
from methods.seam.card import Card
from methods.shared.passes import evaluating

ROUNDS = 200  # of L-BFGS at most; the objective is convex, and a hundred rounds find its minimum
SMALLEST_CHANGE = 1e-12


class FetrilSettings(Settings):
    """How strongly the classifier is held near zero."""

    c: float = Field(
        100.0, gt=0, allow_inf_nan=False, description="weight of the summed loss beside half of the classifier's square"
    )


def moved_features(
    features_Nd: Tensor, classes_N: Tensor, means_Kd: Tensor, old: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Stand-ins for the old classes: features [M, d] with their classes [M].

    For an old class c those of the new class n whose mean is nearest to c's by cosine, each moved by mean_c - mean_n.
    """
    new = classes_N.unique()
    new_means = means_Kd[new]
    stand_ins = []
    classes = []
    for old_class in old:
        mean = means_Kd[old_class]
        nearest = int(new[F.cosine_similarity(new_means, mean[None]).argmax()])
        moved = features_Nd[classes_N == nearest] + (mean - means_Kd[nearest])
        stand_ins.append(moved)
        classes.append(torch.full((len(moved),), old_class, device=classes_N.device))
    if not stand_ins:
        return features_Nd[:0], classes_N[:0]
    return torch.cat(stand_ins), torch.cat(classes)


def fitted_classifier(points_Md: Tensor, targets_M: Tensor, num_classes: int, c: float) -> tuple[Tensor, Tensor]:
    """Weight [C, d] and bias [C] that minimise ||W||^2 / 2 + c * (the summed cross-entropy over the points)."""
    weight = points_Md.new_zeros(num_classes, points_Md.shape[1], requires_grad=True)
    bias = points_Md.new_zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=ROUNDS,
        tolerance_grad=SMALLEST_CHANGE,
        tolerance_change=SMALLEST_CHANGE,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        # divided by c and the number of points, so that the steps have a sensible size: the minimum is the same
        held = weight.square().sum() / (2 * c * len(points_Md))
        value = held + F.cross_entropy(points_Md @ weight.T + bias, targets_M)
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(objective)
    return weight.detach(), bias.detach()


class Fetril(FrozenFeatures):
    """argmax_k w_k f(x) + b_k, f(x) being the frozen model's unit-length mean state of the text; see `fitted_classifier`.

    After each task the classifier is fitted anew to the task's features and to `moved_features` for all classes that it does
    not have. Of old tasks the class means alone are kept. A label that comes again counts as new, its mean being that over
    all its examples. Departures: the paper trains the features on the first task, ours are the pretrained model's; its
    classifier is a linear SVM or a fully connected layer, ours the latter, fitted to its optimum in float64.
    """

    Settings = FetrilSettings
    card = Card(
        summary="a linear classifier on frozen features; old classes stand in by moved features of new ones",
        paper="2211.13131",
        needs=("boundaries",),
        memory="one mean for each class, and the classifier",
        space={"c": [1.0, 10.0, 100.0, 1000.0]},
        training_space={},
        no_output_units="it trains nothing of the model",
        per_task_weights="it trains nothing of the model",
        no_corpora="it learns classes, and the documents of a corpus have no label",
    )

    def __init__(self, settings: FetrilSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.weight_Kd = torch.zeros(0, 0, dtype=torch.float64)
        self.bias_K = torch.zeros(0, dtype=torch.float64)

    @torch.no_grad()
    def after_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        features_Nd, classes_N = self._features(model, task_id, batches)
        num_classes = self.context.labels[task_id]
        sums_Kd = self.zeros(model, num_classes, self.width(model)).index_add(0, classes_N, features_Nd)
        self.add(sums_Kd, torch.bincount(classes_N, minlength=num_classes).double())
        self._fit(features_Nd, classes_N)

    def _features(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """The features [N, d] of all the task's examples with their classes [N], the same on every worker."""
        num_examples = len(self.context.examples(task_id))
        # each worker fills in its own examples: the sum over workers holds all of them
        features_Nd = self.zeros(model, num_examples, self.width(model))
        classes_N = self.zeros(model, num_examples)
        with evaluating(model):
            for batch in batches:
                features_Nd[batch.example_indices] = self.context.embed(batch).double()
                classes_N[batch.example_indices] = batch.classes.double()
        return self.context.sum_over_workers(features_Nd), self.context.sum_over_workers(classes_N).round().long()

    def _fit(self, features_Nd: Tensor, classes_N: Tensor) -> None:
        seen = self.counts_K.nonzero().flatten()
        old = sorted(set(seen.tolist()) - set(classes_N.tolist()))
        means_Kd = self.sums_Kd / self.counts_K.clamp(min=1)[:, None]
        stand_ins, stand_in_classes = moved_features(features_Nd, classes_N, means_Kd, old)
        points_Md = torch.cat([features_Nd, stand_ins])
        # the classifier has a unit for each class that was seen, the labels of later tasks lie between them
        targets_M = torch.searchsorted(seen, torch.cat([classes_N, stand_in_classes]))
        weight, bias = fitted_classifier(points_Md, targets_M, len(seen), self.settings.c)
        self.weight_Kd = torch.zeros_like(self.sums_Kd)
        self.bias_K = torch.zeros_like(self.counts_K)
        self.weight_Kd[seen] = self.context.from_first_worker(weight)
        self.bias_K[seen] = self.context.from_first_worker(bias)

    def feature_scores(self, features_Bd: Tensor) -> Tensor:
        """[B, K] scores of the classifier."""
        return features_Bd @ self.weight_Kd.to(features_Bd.device).T + self.bias_K.to(features_Bd.device)

    def state_dict(self) -> State:
        state = super().state_dict()
        if state:
            state |= {"weight": self.weight_Kd, "bias": self.bias_K}
        return state

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self.weight_Kd = state["weight"]
        self.bias_K = state["bias"]
