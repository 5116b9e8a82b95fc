"""Whether several sequences can be trained in one pass over one frozen model, from their plans alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from orchestrator.models.families import load_family
from orchestrator.models.source import find_model
from orchestrator.planning.door import LABELS
from orchestrator.planning.sequence_plan import SequencePlan

# What decides the batches of a task, or how the model is called; all other settings of training are each sequence's own
_SHARED_TRAINING = (
    "global_batch",
    "micro_batch",
    "epochs",
    "epochs_per_task",
    "budget",
    "checkpoint_activations",
    "compile",
)


def why_not_fused(sequences: Sequence[SequencePlan]) -> str:
    """Why the sequences cannot be trained in one pass; empty where they can.

    They have to read the same batches in the same order with the same frozen model, and to differ in what trains.
    """
    if len(sequences) < 2:
        return "a single sequence has none to be trained with"
    for sequence in sequences:
        reason = _own_reason(sequence) or _difference(sequences[0], sequence)
        if reason:
            return f"{sequence.id}: {reason}"
    # what one of them trains the other one would find, or wait for
    if len({sequence.keys[1] for sequence in sequences}) < len(sequences):
        return "two of them train the same"
    return _reason_of_model(sequences[0])


def _own_reason(sequence: SequencePlan) -> str:
    """What speaks against a sequence alone."""
    spec = sequence.method.spec
    if spec.reference:
        return f"{spec.reference!r} is a reference run"
    if spec.plugins:
        return f"the plug-in {spec.plugins[0].name!r} may look at the layers of its own model"
    if not spec.tuning_type.card.only_lora_layers:
        return f"{spec.tuning.name!r} adds more to a model than plain LoRA layers"
    training = sequence.training
    if training.checkpoint_activations or training.compile:
        return "training.checkpoint_activations and training.compile change the blocks of its own model"
    if training.micro_batch == "auto":
        return "training.micro_batch: auto is found for one sequence at a time"
    return ""


def _difference(first: SequencePlan, sequence: SequencePlan) -> str:
    """In what two sequences differ that must be the same; empty where they do not."""
    for name in ("model", "model_identity", "stream", "split", "tasks", "seed", "out"):
        if getattr(sequence, name) != getattr(first, name):
            return f"its {name} is another one than that of {first.id}"
    for name in _SHARED_TRAINING:
        if getattr(sequence.training, name) != getattr(first.training, name):
            return f"its training.{name} is another one than that of {first.id}"
    # the key of the initial state is made of all that decides what the method adds to the model
    if sequence.keys[0] != first.keys[0]:
        return f"its adapters are not made as those of {first.id}"
    return ""


def _reason_of_model(sequence: SequencePlan) -> str:
    """What speaks against the model. Its own dropout would draw for each sequence anew: then none would be what it is alone."""
    source = find_model(sequence.model)
    if source.sentence_encoder:
        return "a sentence encoder reads label texts beside the batch"
    skeleton: Any = load_family(replace(source, has_values=False), sequence.model, LABELS, seed=0).module
    for name, value in skeleton.config.to_dict().items():
        if "drop" in name and isinstance(value, float) and value > 0:
            return f"the model has dropout ({name} = {value:g})"
    return ""
