"""The card: what a method declares about itself before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

NEEDS = ("boundaries", "old data", "task labels")

# What a search tries for a setting: values, or a range as {low, high, log}
Tried = Sequence[Any] | Mapping[str, Any]


def log_range(low: float, high: float) -> Mapping[str, Any]:
    """All values from `low` to `high`, drawn evenly in the logarithm: as rates are, of which no list is long enough.

    A method whose rates were listed would have no more trials than that, while another one goes on.
    """
    return {"low": low, "high": high, "log": True}


# Learning rates with AdamW: of whole weights, of low-rank adapters, and of soft prompts
WEIGHT_RATES = log_range(1e-5, 3e-3)
ADAPTER_RATES = log_range(1e-4, 1e-2)
PROMPT_RATES = log_range(0.03, 0.5)


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a method says of itself: what it is, what it costs to keep, what it goes with, what a search tries.

    Of the reasons ("why ..."), an empty one says that it is not so; a given one is what the user reads when a combination
    is refused.
    """

    summary: str = ""
    """What it does, in one line."""
    paper: str = ""
    """The arXiv number of its paper."""
    version: int = 1
    """Raised where it computes something else than before with the same settings: then older checkpoints are not its."""
    needs: tuple[str, ...] = ()
    """What it is told beyond the data of the present task: "boundaries", "old data", "task labels" (when answering)."""
    memory: str = ""
    """What it keeps beside the model, in words."""
    kept_share: str = ""
    """Of a method that keeps examples of earlier tasks: the setting that says which share of each task's."""
    space: Mapping[str, Tried] = field(default_factory=dict)
    """What a search tries, by setting: amounts alone.

    A setting that says which method it is (a rule, an importance, what is only there or not) has no place in it: another
    method would be chosen under this one's name. Nor has the size of a memory, which the scenario fixes for all methods.
    """
    space_only_with: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)
    """Of settings in the space that only some kinds of the method have: {"scale": {"rule": ("ties", "dare")}}."""
    training_space: Mapping[str, Tried] = field(default_factory=lambda: {"lr": WEIGHT_RATES})
    """Of a tuning method: what a search tries for training settings, by setting."""
    default_lr: float = 1e-3
    """Of a tuning method: the learning rate where the user gives none."""

    requires_output_units: bool = False
    """Whether it needs trained linear layers inside the blocks, whose rows are output units."""
    requires_shared_weights: bool = False
    """Whether it needs weights that later tasks go on training."""
    requires_generation: bool = False
    """Whether it needs a model that generates."""
    requires_head: bool = False
    """Whether it needs a model with a classification head, a unit for each label."""
    requires_gradients: bool = False
    """Whether it needs steps along the gradients that `before_optimizer_step` leaves."""
    requires_own_weights: bool = False
    """Whether it needs that the model's own weights train, not what is added to them."""
    not_with: Mapping[str, str] = field(default_factory=dict)
    """Of a plug-in: the names of those that it does not go with, and why."""
    modifies_weights_after_task: str = ""
    """How `after_task` changes the trained weights: then training cannot go on from before the last steps."""

    no_corpora: str = ""
    """Why it cannot learn from corpora, whose documents have no label and are no answer to anything."""
    not_sharded: str = ""
    """Why it cannot work on a model of which each worker holds a part."""
    not_quantised: str = ""
    """Why it cannot work on frozen linear layers that are kept in 8 or 4 bits."""

    no_output_units: str = ""
    """Of a tuning method: why no linear layers inside the blocks train by plain gradients."""
    per_task_weights: str = ""
    """Of a tuning method: why what one task trains is not what the next one trains."""
    no_gradients: str = ""
    """Of a tuning method: why the optimizer does not follow the parameters' own gradients."""
    no_own_weights: str = ""
    """Of a tuning method: why none of the model's own weights train."""
    only_lora_layers: bool = False
    """Of a tuning method: whether all that it adds to a model are LoRA layers of peft, at which nothing else looks while a step
    is computed. Then several trials of it can be computed in one pass."""

    strength_zero: Mapping[str, Any] | None = None
    """Of a plug-in: settings with which it is computed and changes nothing; the contract holds it to that."""
    strong: Mapping[str, Any] = field(default_factory=dict)
    """Of a plug-in: further settings with which two steps of the second task show that it acts."""
    quick: Mapping[str, Any] = field(default_factory=dict)
    """Settings for checking the method on a small model in seconds, where the defaults take long or do not fit its size."""

    def __post_init__(self) -> None:
        for need in self.needs:
            # a misspelt need would hide from a user that a method is told more than others
            if need not in NEEDS:
                raise ValueError(f"needs: {need!r} is none of {', '.join(NEEDS)}")

    def space_of(self, settings: Mapping[str, Any]) -> dict[str, Tried]:
        """What a search tries for a method with these settings."""
        space = {}
        for name, tried in self.space.items():
            needed = self.space_only_with.get(name, {})
            if all(settings[other] in values for other, values in needed.items()):
                space[name] = tried
        return space
