"""A-GEM: no step against the gradient on old examples (arXiv 1812.00420)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from methods.base import Context, Example, Method, Settings, at_least_float32, trainable
from methods.batch import Batch
from methods.replay.memory import add_to_gradients, draw, gradient_of, losses, remembered, remembered_count
from methods.seam.cache_fields import CacheFields
from methods.seam.card import Card
from methods.seam.cost import Cost, ExtraPasses
from methods.shared.shards import total


class AgemSettings(Settings):
    """What is kept of old tasks, and how much of it a step looks at. `margin` 0 is the paper."""

    fraction: float = Field(0.02, ge=0, le=1, description="share of each task's examples that is kept")
    examples: int = Field(
        64, ge=1, description="kept examples for a step's reference gradient; all where fewer are kept"
    )
    margin: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="old descent that a step must have, as a share of the reference's own",
    )


def shortfall(gradients: Mapping[str, Tensor | None], references: Mapping[str, Tensor], margin: float) -> float:
    """max(0, margin - (g . r) / (r . r)) over all tensors together: so many r bring g to where g . r = margin r . r.

    A missing gradient is zero; a zero reference asks for nothing.
    """
    squares = []
    products = []
    for name, reference in references.items():
        r = at_least_float32(reference)
        squares.append(r.square())
        gradient = gradients[name]
        if gradient is not None:
            products.append(at_least_float32(gradient) * r)
    square = float(total(squares))
    if not square > 0:
        return 0.0
    # without a gradient g is zero
    dot = float(total(products)) if products else 0.0
    return max(0.0, margin - dot / square)


class Agem(Cost, CacheFields, Method):
    """From the second task on: where g . r < 0, g <- g - (g . r) / (r . r) r, over all trained parameters as one vector.

    With `margin` (ours, after GEM's, arXiv 1706.08840): where g . r < margin r . r, g <- g + (margin - (g . r) / (r . r)) r.
    g is the step's gradient, penalties of other plug-ins included, before clipping. r is the gradient of the mean loss on
    examples drawn for each step from what is kept of all earlier tasks together, none twice. We depart from the paper in that
    the pass for r has no dropout, and in that the optimizer may be AdamW, whose step is not along g: the
    promise that old losses do not rise, to first order, is SGD's. A plug-in listed later changes the projected gradient.
    """

    Settings = AgemSettings
    card = Card(
        summary="project the gradient where it would undo old examples",
        paper="1812.00420",
        needs=("boundaries", "old data"),
        memory="a share of each task's examples, and a second gradient",
        kept_share="fraction",
        space={"examples": [16, 64, 256]},
        requires_gradients=True,
        strength_zero={"fraction": 0.0},
        strong={"fraction": 0.5, "margin": 2.0},
    )

    def __init__(self, settings: AgemSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.kept: list[Example] = []
        self.task_id = 0
        self.steps = 0
        self.projected_steps = 0

    def cache_fields(self, task_id: int) -> Mapping[str, Any] | None:
        if task_id == 0:
            return None
        return self.settings.model_dump()

    def extra_passes(self, task_id: int, size: int) -> ExtraPasses:
        num_kept = remembered_count(self.context, task_id, self.settings.fraction)
        return ExtraPasses(training=min(self.settings.examples, num_kept) / size)

    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        self.task_id = task_id
        self.steps = 0
        self.projected_steps = 0
        self.kept = remembered(self.context, task_id, self.settings.fraction)

    def before_optimizer_step(self, model: nn.Module) -> None:
        if not self.kept:
            return
        self.steps += 1
        count = min(self.settings.examples, len(self.kept))
        drawn = draw(self.kept, count, self.context.seed, "agem", self.task_id, self.steps)
        references = gradient_of(self.context, model, losses(self.context, model, drawn))
        gradients = {name: p.grad for name, p in trainable(model).items()}
        missing = shortfall(gradients, references, self.settings.margin)
        if missing > 0:
            self.projected_steps += 1
            add_to_gradients(model, references, missing)

    def diagnostics(self) -> Mapping[str, float | list[Any]]:
        """`projected_share`: the share of the task's steps whose gradient was projected."""
        # nothing was kept, or no step was made
        if not self.steps:
            return {}
        return {"projected_share": self.projected_steps / self.steps}
