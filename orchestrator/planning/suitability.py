"""Whether data, model and methods go together, in what each says of itself. Raises UserError with one line where not."""

from __future__ import annotations

from collections.abc import Sequence

from methods import Card, TuningMethod
from orchestrator.config.experiment import RunConfig
from orchestrator.config.method import MethodEntry
from orchestrator.config.model import CHOOSING, ModelConfig
from orchestrator.errors import UserError
from orchestrator.models.family import Family
from orchestrator.models.source import ModelSource
from streams import FROM_LIKELIHOOD, RUNS_CODE, Corpus, Objective, Stream, Task


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
    _check_during(stream, config)
    _check_end_tasks(stream, config)


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


def _check_during(stream: Stream, config: RunConfig) -> None:
    """Refuses scores amid training of a corpus, which has no examples to be drawn."""
    if config.evaluation.during is None:
        return
    for task in stream.tasks:
        if task.objective == "text":
            raise UserError(
                f"evaluation.during: task {task.name!r} of stream {stream.name!r} is a corpus; it goes with answers"
            )


def _check_end_tasks(stream: Stream, config: RunConfig) -> None:
    """Refuses to fine-tune copies of a model of which each worker holds a part."""
    for task in stream.tasks:
        if isinstance(task, Corpus) and task.end_task is not None and config.scaling.is_sharded:
            raise UserError(
                f"stream {stream.name!r}: task {task.name!r}: an end_task fine-tunes copies of the whole model, which "
                f"scaling.strategy: {config.scaling.strategy!r} does not hold; allowed: ddp"
            )


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
