"""What a corpus has taught a model: a copy of a state is fine-tuned on a task with labels, and that copy is scored."""

from __future__ import annotations

import torch

from orchestrator.config.method import MethodEntry
from orchestrator.config.training import TrainingConfig
from orchestrator.evaluation.scores import ScoredModel
from orchestrator.models.family import Family
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from orchestrator.training.task import train_task
from streams import EndTask, Stream


def fine_tuned(learner: Learner, end_task: EndTask) -> ScoredModel:
    """A copy of the state that a learner holds, with a task head of its own, after fine-tuning all of its weights.

    It is a function of the state, the end task and the sequence's seed, and the learner keeps its state. An encoder's head over
    the vocabulary has no part in it; a decoder learns to write the labels. Raises ValueError where a worker holds a part of
    the model alone.
    """
    if learner.parallel.holds_parts:
        raise ValueError("end_task: a copy of the whole model is fine-tuned; it goes with scaling.strategy: ddp")
    sequence = learner.sequence
    model = sequence.model.model_copy(update={"base": "float32"})
    if model.scoring == "masked":
        model = model.model_copy(update={"scoring": "head"})
    training = TrainingConfig(
        lr=end_task.lr,
        epochs=end_task.epochs,
        global_batch=end_task.batch,
        weight_decay=end_task.weight_decay,
        schedule="linear",
    )
    name = end_task.task.name
    method = MethodEntry.model_validate("ft")
    plan = sequence.model_copy(update={"model": model, "method": method, "training": training, "tasks": (name,)})
    # by this worker alone: others score other tasks meanwhile
    alone = Parallel(device=learner.parallel.device)
    with torch.random.fork_rng(), torch.enable_grad():
        copy = Learner(plan, Stream(name, (end_task.task,)), alone)
        copy.load_initial()
        _copy_weights(learner.family, copy.family)
        train_task(copy, 0, lambda event: None)
    return copy.scored_model()


@torch.no_grad()
def _copy_weights(source: Family, copy: Family) -> None:
    """Put the weights of a model into another of its architecture, but for the heads of the two.

    Raises ValueError where the first has weights elsewhere, as an adapter's.
    """
    prefix = ""
    if type(source) is not type(copy):
        # what lies outside the transformer itself is a head, the other one of which is new
        prefix = f"{source.module.base_model_prefix}."
    weights = dict(copy.module.named_parameters())
    for name, weight in source.module.named_parameters():
        if not name.startswith(prefix):
            continue
        if name not in weights or weights[name].shape != weight.shape:
            raise ValueError(f"end_task: a copy of the model has no weight {name!r} of shape {tuple(weight.shape)}")
        weights[name].copy_(weight)
