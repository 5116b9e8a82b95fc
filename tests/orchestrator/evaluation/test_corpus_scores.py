"""Perplexity and bits per byte of corpora, against plain loops over single blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from methods import IGNORED
from orchestrator.evaluation.scores import block_likelihoods, score_task
from orchestrator.training.learner import Learner
from orchestrator.training.sequence import run_sequence
from streams import Corpus
from tests.orchestrator.models.corpora import corpus_learner


def plain_losses(learner: Learner) -> list[tuple[float, int]]:
    """-log p and the number of the predicted tokens of each test block, one block at a time."""
    family = learner.family
    family.module.eval()
    losses = []
    for block in family.features_of(learner.stream.tasks[0], "test"):
        batch = family.collate([block])
        logits = family.module(input_ids=batch.source.ids).logits[0].log_softmax(1).detach()
        # a decoder predicts a token from those before it, an encoder where it stands
        shift = 1 if family.generates else 0
        loss = 0.0
        for position, token in enumerate(batch.labels[0].tolist()):
            if token != IGNORED:
                loss -= float(logits[position - shift, token])
        losses.append((loss, int((batch.labels != IGNORED).sum())))
    return losses


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-roberta"])
def test_perplexity_is_that_of_all_predicted_tokens_together(model: str, learner_of: Callable[..., Learner]) -> None:
    learner = corpus_learner(learner_of, model)
    task = learner.stream.tasks[0]
    losses = plain_losses(learner)
    expected = math.exp(sum(loss for loss, _ in losses) / sum(count for _, count in losses))
    for batch_size in (1, 3, 64):
        score = score_task(learner.scored_model(), task, "test", batch_size)
        assert score.score == pytest.approx(expected, rel=1e-5)
        assert (score.n, score.correct, score.score_options) == (len(losses), 0, None)
        for prediction, (loss, count) in zip(score.predictions, losses, strict=True):
            assert prediction.score == pytest.approx(math.exp(loss / count), rel=1e-4)
    assert learner.family.module.training
    # before training a model of random weights knows nothing of 2,300 tokens
    assert 1500 < expected < 4000


def test_bits_per_byte_count_the_bytes_of_the_documents(learner_of: Callable[..., Learner]) -> None:
    learner = corpus_learner(learner_of, "tiny-llama", stream={"scorer": "bits-per-byte"})
    task = learner.stream.tasks[0]
    assert isinstance(task, Corpus)
    num_bytes = sum(len(document.encode()) for document in task.documents("test"))
    expected = sum(loss for loss, _ in plain_losses(learner)) / math.log(2) / num_bytes
    assert score_task(learner.scored_model(), task, "test", 8).score == pytest.approx(expected, rel=1e-5)


def test_a_batch_has_few_tokens(learner_of: Callable[..., Learner], monkeypatch: pytest.MonkeyPatch) -> None:
    learner = corpus_learner(learner_of, "tiny-llama")
    sizes: list[int] = []
    collate = learner.family.collate

    def counted(features: Any) -> Any:
        sizes.append(len(features))
        return collate(features)

    monkeypatch.setattr(learner.family, "collate", counted)
    monkeypatch.setattr("orchestrator.evaluation.scores.TOKENS_ON_CPU", 100)
    task = learner.stream.tasks[0]
    assert isinstance(task, Corpus)
    list(block_likelihoods(learner.family, task, "test", 64, torch.device("cpu")))
    # blocks of 47 tokens
    assert max(sizes) == 2


def test_a_sequence_is_scored_in_perplexity_of_which_less_is_better(
    learner_of: Callable[..., Learner], tmp_path: Path
) -> None:
    sequence = corpus_learner(learner_of, "tiny-llama", stream={"max_train": 12}, training={"lr": 5e-3}).sequence
    matrix = run_sequence(sequence).matrix()
    assert sequence.scorers == ("perplexity", "perplexity")
    assert matrix[1, 0] < 0.5 * matrix[0, 0]
    assert matrix[2, 1] < 0.5 * matrix[1, 1]
