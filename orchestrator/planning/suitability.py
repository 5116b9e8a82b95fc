"""Whether data, model and methods go together, in what each says of itself. Raises UserError with one line where not."""

from __future__ import annotations

from methods import TuningMethod
from orchestrator.config.experiment import RunConfig
from orchestrator.config.method import MethodEntry
from orchestrator.config.model import CHOOSING
from orchestrator.errors import UserError
from orchestrator.models.family import Family
from streams import FROM_LIKELIHOOD, RUNS_CODE, Stream


def check_family(config: RunConfig, family: type[Family]) -> None:
    """Refuses a method that needs what the model's family does not do."""
    name = config.model.name
    for method in config.methods:
        for part in method.types:
            if part.card.requires_generation and not family.generates:
                raise UserError(f"methods: {method.label!r} needs a model that generates text; {name!r} is an encoder")
            if part.card.requires_head and not family.has_head:
                raise UserError(
                    f"methods: {method.label!r} needs an encoder with a classification head; {name!r} has none"
                )


def check_stream(stream: Stream, config: RunConfig, family: type[Family]) -> None:
    """Refuses tasks that the model, or a method on it, has no answers or scores for."""
    _check_open_answers(stream, config, family)
    _check_likelihoods(stream, config, family)
    _check_guests(stream, config, family)
    _check_programs(stream, config)


def _check_open_answers(stream: Stream, config: RunConfig, family: type[Family]) -> None:
    """Refuses a task without a label set where answers are chosen among labels."""
    for task in stream.tasks:
        if task.labels or task.objective == "text":
            continue
        open_task = f"stream {stream.name!r}: task {task.name!r} has no label set"
        if config.model.scoring in CHOOSING and task.scorer not in FROM_LIKELIHOOD:
            raise UserError(
                f"{open_task}, and model.scoring: {config.model.scoring} chooses among labels; allowed: generate"
            )
        if not family.generates:
            raise UserError(
                f"{open_task}, and {config.model.name!r} is an encoder, which answers with one of the labels"
            )
        for method in config.methods:
            # not `spec.trains_by_gradient`, which a reference run lacks that trains nothing and yet generates
            if not _generates_answers(method):
                raise UserError(f"{open_task}, and method {method.label!r} answers with one of the labels")


def _check_likelihoods(stream: Stream, config: RunConfig, family: type[Family]) -> None:
    """Refuses a scorer of likelihoods where no loss of an answer's text is computed."""
    for task in stream.tasks:
        if task.scorer not in FROM_LIKELIHOOD or task.objective == "text":
            continue
        scorer = f"stream {stream.name!r}: task {task.name!r}: the scorer {task.scorer!r} asks how likely a text is"
        if not family.generates:
            raise UserError(
                f"{scorer}, and {config.model.name!r} is an encoder, which chooses among labels and writes none"
            )
        for method in config.methods:
            if not _generates_answers(method):
                raise UserError(f"{scorer}, and method {method.label!r} compares embeddings of labels")


def _check_guests(stream: Stream, config: RunConfig, family: type[Family]) -> None:
    """Refuses guests of labels that nobody has met by then, where answers are chosen among labels."""
    by_labels = [method.label for method in config.methods if not _generates_answers(method)]
    if family.generates and not by_labels:
        return
    who = f"{config.model.name!r} is an encoder, which answers"
    if family.generates:
        who = f"method {by_labels[0]!r} answers"
    for task_id, task in enumerate(stream.tasks):
        known = stream.labels_until(task_id + 1)
        for guest_task in task.guest_tasks:
            for label in guest_task.labels or ("any answer",):
                if label not in known:
                    raise UserError(
                        f"stream {stream.name!r}: task {task.name!r} has guests of task {guest_task.name!r}, whose label "
                        f"{label!r} no task has brought by then, and {who} with one of the labels"
                    )


def _check_programs(stream: Stream, config: RunConfig) -> None:
    """Refuses to run what a model writes, unless a user asks for it and it can be shut off from the network."""
    for task in stream.tasks:
        if task.scorer not in RUNS_CODE:
            continue
        scorer = f"stream {stream.name!r}: task {task.name!r}: the scorer {task.scorer!r} runs programs that the model writes"
        if task.sealed:
            raise UserError(f"{scorer}, by checks that only test rows have: a search cannot tune on it")
        if task.labels:
            raise UserError(f"{scorer}: its answers are open, so give `labels: []`")
        if not config.evaluation.run_code:
            raise UserError(f"{scorer}: evaluation.run_code: true allows it")


def check_epochs(stream: Stream, config: RunConfig) -> None:
    """Refuses epochs for a task that a stream has not."""
    for method in config.methods:
        for name in config.training_for(method).epochs_per_task:
            if name not in stream.task_names:
                has = ", ".join(stream.task_names)
                raise UserError(f"training.epochs_per_task: stream {stream.name!r} has no task {name!r}: {has}")


def _generates_answers(method: MethodEntry) -> bool:
    """Whether the model itself answers; a tuning method without gradient steps compares embeddings with each label's."""
    tuning = method.types[0]
    assert issubclass(tuning, TuningMethod)
    return tuning.trains_by_gradient
