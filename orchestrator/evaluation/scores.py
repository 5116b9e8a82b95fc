"""The score of one state on one task, computed once and cached by what it depends on, with the answer to each example."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from methods import Batch, Stack, at_least_float32
from orchestrator.evaluation.intervals import Interval, bootstrap_interval
from orchestrator.evaluation.likelihoods import Likelihood, LikelihoodScorer
from orchestrator.evaluation.scorer import Scorer, addends_of
from orchestrator.evaluation.scorers import scorer_of
from orchestrator.evaluation.texts import KEPT, TOKENS_ON_CPU, Texts, batches_by_length
from orchestrator.models.encoder_decoder import EncoderDecoder
from orchestrator.models.family import Family, Feature, column
from orchestrator.models.packing.blocks import Blocks
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import ScoreComputed
from orchestrator.store.predictions import Prediction, save_predictions
from streams import Corpus, EndTask, Example, Split, Stream, Task

# An answer, and the answer when only the task's own options compete (None where answers are not chosen from options)
Answer = tuple[str, str | None]


@dataclass(frozen=True)
class ScoredModel:
    """A model in the state that is to be scored: with its method, its device, and a context of its numeric precision.

    `keeps_scores` is False on a worker that only takes part in computing what another one keeps. `fine_tuned` gives a copy
    that was trained on an end task.
    """

    family: Family
    stack: Stack
    device: torch.device
    precision: Callable[[], AbstractContextManager[Any]]
    keeps_scores: bool = True
    fine_tuned: Callable[[EndTask], ScoredModel] | None = None


@dataclass(frozen=True)
class TaskScore:
    """The score of one state on one task, in the unit of the task's scorer, over `n` examples.

    `score_options` is the score when only the task's own options compete; None for models that generate. `interval` is the
    bootstrap interval of `score` over the examples.
    """

    score: float
    score_options: float | None
    correct: int
    n: int
    predictions: tuple[Prediction, ...]
    interval: Interval | None = None

    def record(self) -> dict[str, Any]:
        """What is cached under the score's key: all but the predictions, which lie beside it."""
        return {
            "score": self.score,
            "score_options": self.score_options,
            "correct": self.correct,
            "n": self.n,
            "interval": self.interval,
        }


def score_task(model: ScoredModel, task: Task, split: Split, batch_size: int) -> TaskScore:
    """Score a state on a split of a task, in batches of at most `batch_size` examples. The batch size changes no answer."""
    if isinstance(task, Corpus):
        return _score_corpus(model, task, split, batch_size)
    examples = task.read(split)
    return score_examples(model, task, examples, KEPT.texts(model.family, task, split, examples), batch_size)


@torch.no_grad()
def score_examples(
    model: ScoredModel, task: Task, examples: Sequence[Example], texts: Texts, batch_size: int, resamples: bool = True
) -> TaskScore:
    """Score a state on examples of a task, which come as token ids too; `resamples`: with the score's interval."""
    scorer = scorer_of(task)
    compute: Callable[[list[Feature]], list[Any]] = partial(_answers, model, task)
    if isinstance(scorer, LikelihoodScorer):
        compute = partial(losses_of, model)
    found: dict[int, Any] = {}
    with evaluating(model.family), model.precision():
        for indices in batches_by_length(texts.lengths, batch_size, model.device.type == "cpu"):
            of_batch = compute(list(map(texts.feature, indices)))
            found.update(zip(indices, of_batch, strict=True))
    in_order = list(map(found.__getitem__, range(len(examples))))
    if isinstance(scorer, LikelihoodScorer):
        likelihoods = []
        for index, example in enumerate(examples):
            likelihoods.append(_likelihood(model.family, example, in_order[index], texts.feature(index)["target"]))
        return score_likelihoods(scorer, examples, likelihoods, resamples)
    return score_answers(scorer, examples, in_order, resamples)


def _score_corpus(model: ScoredModel, corpus: Corpus, split: Split, batch_size: int) -> TaskScore:
    """The score of a state on a corpus, of which each block is an example; or on its end task, of a copy."""
    if corpus.end_task is not None:
        assert model.fine_tuned is not None, "given where states are scored"
        return score_task(model.fine_tuned(corpus.end_task), corpus.answered, split, batch_size)
    scorer = scorer_of(corpus)
    assert isinstance(scorer, LikelihoodScorer), "refused at the door"
    with torch.no_grad(), evaluating(model.family), model.precision():
        likelihoods = list(block_likelihoods(model.family, corpus, split, batch_size, model.device))
    # without its text, which is that of parts of documents
    blocks = [Example("", "", number) for number in range(1, len(likelihoods) + 1)]
    return score_likelihoods(scorer, blocks, likelihoods)


def block_likelihoods(
    family: Family, corpus: Corpus, split: Split, batch_size: int, device: torch.device
) -> Iterator[Likelihood]:
    """What the model makes of each block, in order: of each token, or of those that a fixed mask chooses for all states.

    In batches of at most `batch_size`, and of few tokens: each of them has as many logits as there are tokens to choose from.
    """
    blocks = family.features_of(corpus, split)
    assert isinstance(blocks, Blocks)
    size = max(1, min(batch_size, TOKENS_ON_CPU // family.block_length))
    for first in range(0, len(blocks), size):
        batch = family.collate(blocks[first : first + size]).to(device)
        losses = block_losses(family, batch).tolist()
        num_bytes = blocks.tokens.block_bytes[first : first + size].tolist()
        for loss, num_tokens, of_block in zip(losses, batch.answers_by_example(), num_bytes, strict=True):
            yield Likelihood(loss, num_tokens, of_block)


def block_losses(family: Family, batch: Batch) -> Tensor:
    """[B] blocks: -log p of the predicted tokens of each together, of N in all; in float32 at least."""
    assert batch.answers is not None
    # the family sums over the batch; its logits are those of the answers, in their order
    _, logits_NV = family.forward(family.module, batch)
    losses_N = F.cross_entropy(at_least_float32(logits_NV), batch.answer_tokens(), reduction="none")
    losses_B = torch.zeros(len(batch.labels), dtype=losses_N.dtype, device=losses_N.device)
    return losses_B.index_add(0, batch.answers // batch.labels.shape[1], losses_N)


def score_answers(
    scorer: Scorer, examples: Sequence[Example], answers: Sequence[Answer], resamples: bool = True
) -> TaskScore:
    """The score of a task from the answer to each of its examples."""
    predictions = []
    results = []
    results_of_options = []
    num_correct = 0
    for index, (example, (answer, option)) in enumerate(zip(examples, answers, strict=True)):
        result = scorer.score_example(answer, example)
        predictions.append(Prediction(index, example.row, example.label, answer, result.correct, result.score, option))
        results.append(result)
        num_correct += result.correct
        # either every answer has one or none has: it depends on the model
        if option is not None:
            results_of_options.append(scorer.score_example(option, example))
    score = scorer.combined(results)
    score_options = None
    if results_of_options:
        score_options = scorer.combined(results_of_options)
    interval = bootstrap_interval(scorer, addends_of(results)) if resamples else None
    return TaskScore(score, score_options, num_correct, len(examples), tuple(predictions), interval)


def score_likelihoods(
    scorer: LikelihoodScorer, examples: Sequence[Example], likelihoods: Sequence[Likelihood], resamples: bool = True
) -> TaskScore:
    """The score of a task from how likely each of its targets is. Nothing was answered, and no prediction has a text."""
    predictions = []
    results = []
    for index, (example, likelihood) in enumerate(zip(examples, likelihoods, strict=True)):
        result = scorer.score_likelihood(likelihood)
        predictions.append(Prediction(index, example.row, example.label, "", result.correct, result.score))
        results.append(result)
    interval = bootstrap_interval(scorer, addends_of(results)) if resamples else None
    return TaskScore(scorer.combined(results), None, 0, len(examples), tuple(predictions), interval)


def losses_of(model: ScoredModel, features: list[Feature]) -> list[float]:
    """-log p of each target, by a model that has read its prompt first, as it has where it answers."""
    prompts = model.family.read(features, model.device)
    losses: list[float] = model.family.answer_losses(prompts, column(features, "target")).tolist()
    return losses


def _likelihood(family: Family, example: Example, loss: float, target: list[int]) -> Likelihood:
    assert isinstance(family, EncoderDecoder), "refused at the door"
    return Likelihood(loss, len(target), family.num_bytes(example.label, target))


def _answers(model: ScoredModel, task: Task, features: list[Feature]) -> list[Answer]:
    """The model's own answers, or those of a method that answers by embeddings."""
    family = model.family
    if model.stack.tuning.trains_by_gradient:
        return family.answers(task, features, model.device)
    embedded_Bd = family.embed(family.collate(features).to(model.device))
    scores_BK = model.stack.tuning.class_scores(embedded_Bd)
    # labels of tasks that are still to come have no scores yet, and must not be answered
    num_unseen = len(family.labels) - scores_BK.shape[1]
    answers = family.best_labels(task, F.pad(scores_BK, (0, num_unseen), value=-math.inf))
    if family.generates:
        # a method that generates has no options to choose from, so beside it neither has this one
        return [(answer, None) for answer, _ in answers]
    return answers


@contextlib.contextmanager
def evaluating(family: Family) -> Iterator[None]:
    """A context in which the model answers, without dropout."""
    family.module.eval()
    try:
        yield
    finally:
        # dropout is part of training: the next task must find it on, also where scoring failed
        family.module.train()


def missing_scores(sequence: SequencePlan, tasks_seen: int, store: Store) -> list[int]:
    """The tasks on which the state after `tasks_seen` tasks (0: the initial model) is to be scored, and nobody has.

    Of a task that comes again in the stream the first occurrence alone: its score is that of the others too.
    """
    keys = sequence.score_keys[tasks_seen]
    to_score = sequence.tasks_to_score(tasks_seen)
    known = set(store.load_scores(keys[task_id] for task_id in to_score))
    missing = []
    for task_id in to_score:
        if keys[task_id] not in known:
            missing.append(task_id)
        known.add(keys[task_id])
    return missing


def compute_score(
    model: ScoredModel, sequence: SequencePlan, stream: Stream, store: Store, tasks_seen: int, task_id: int
) -> None:
    """Score the state that `model` holds, the one after `tasks_seen` tasks, on one task; keep the score and predictions."""
    started = time.monotonic()
    task = stream.tasks[task_id]
    # the position, not the index: a method that is told its task is told the one that it was trained as
    position = sequence.method.run_kind.task_position(task_id)
    model.stack.before_scoring(model.family.module, position)
    task_score = score_task(model, task, sequence.split, sequence.evaluation.batch)
    if not model.keeps_scores:
        return
    record = task_score.record()
    record["seconds"] = round(time.monotonic() - started, 3)
    key = sequence.score_keys[tasks_seen][task_id]
    # the score comes last: where it is, its predictions are too, whenever this process may die
    save_predictions(store.root, key, task_score.predictions)
    store.save_score(key, record)


def score_events(sequence: SequencePlan, tasks_seen: int, store: Store) -> Iterator[ScoreComputed]:
    """The events of the scores that one state is to have, all of which are cached."""
    keys = sequence.score_keys[tasks_seen]
    to_score = sequence.tasks_to_score(tasks_seen)
    records = store.load_scores(keys[task_id] for task_id in to_score)
    for task_id in to_score:
        key = keys[task_id]
        task = sequence.tasks[task_id]
        yield ScoreComputed(tasks_seen=tasks_seen, task_id=task_id, task=task, key=key, **records[key])
