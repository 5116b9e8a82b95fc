"""Whether a model and the methods learn from what a stream holds: tasks with answers, or corpora."""

from __future__ import annotations

from collections.abc import Sequence

from methods import Card
from orchestrator.config.method import MethodEntry
from orchestrator.config.model import ModelConfig
from orchestrator.errors import UserError
from orchestrator.models.family import Family
from orchestrator.models.source import ModelSource
from streams import Objective, Stream, Task


def for_objectives(model: ModelConfig, source: ModelSource, objectives: set[Objective]) -> ModelConfig:
    """The model's configuration with what `scoring: auto` means for an encoder where streams are corpora. Raises UserError."""
    if source.kind != "encoder" or model.scoring != "auto" or "text" not in objectives:
        return model
    # one head or the other: the family is that of all sequences of an experiment
    if "answer" in objectives:
        raise UserError(
            f"streams: corpora and tasks with answers, and {model.name!r} is an encoder, which has another head for each; make "
            "them two experiments"
        )
    return model.model_copy(update={"scoring": "masked"})


def check_objectives(stream: Stream, model: ModelConfig, family: type[Family], methods: Sequence[MethodEntry]) -> None:
    """Raises UserError for a task from which the model or a method does not learn."""
    for task in stream.tasks:
        what = f"stream {stream.name!r}: task {task.name!r}"
        _check_family(task, what, model, family)
        if task.objective == "answer":
            continue
        for method in methods:
            for part in method.types:
                _check_end_task(task, what, method.label, part.card)
                if part.card.no_corpora:
                    raise UserError(
                        f"{what} is a corpus, and method {method.label!r} does not learn from one: {part.card.no_corpora}"
                    )


def _check_end_task(task: Task, what: str, method: str, card: Card) -> None:
    reason = card.no_own_weights or card.per_task_weights
    if task.answered is not task and reason:
        raise UserError(
            f"{what} has an end task, for which a copy of the model's own weights is fine-tuned, and method {method!r} has "
            f"others: {reason}"
        )


def _check_family(task: Task, what: str, model: ModelConfig, family: type[Family]) -> None:
    if task.objective not in family.objectives:
        if task.objective == "answer":
            raise UserError(
                f"{what} asks for answers, and with model.scoring: masked {model.name!r} reads corpora alone"
            )
        if family.generates:
            raise UserError(
                f"{what} is a corpus, and {model.name!r} is an encoder-decoder, which learns to answer; corpora go with "
                "decoders and encoders"
            )
        raise UserError(
            f"{what} is a corpus, and with model.scoring: {model.scoring} {model.name!r} learns to answer; an encoder reads "
            "corpora with model.scoring: masked"
        )
    if task.objective == "text" and task.scorer == "bits-per-byte" and not family.generates:
        raise UserError(
            f"{what}: bits-per-byte counts the bits of every token, and {model.name!r} predicts those alone that are masked; "
            "use perplexity"
        )
