"""Benchmarks by the real harness: its accuracy equals the one of likelihoods worked out here, and training never notices."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator.evaluation.abilities.probes import main_metric, missing_probes, probe_events
from orchestrator.evaluation.columns import compute_column
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from tests.orchestrator.evaluation.abilities.probe_tasks import ROWS, write_probe

pytest.importorskip("lm_eval")


@pytest.fixture
def learner(tmp_path: Path, sequence_of: Callable[..., SequencePlan]) -> Callable[[str], Learner]:
    """The initial model of a sequence whose states take the benchmark; its weights are large enough to have opinions."""

    def make(model: str) -> Learner:
        probes = {"tasks": ["films"], "include": str(write_probe(tmp_path / "own", "films"))}
        sequence = sequence_of(model=model, evaluation={"probes": probes}, stream={"first": 2})
        learner = Learner(sequence, sequence.open_stream(), Parallel())
        learner.load_initial()
        with torch.no_grad():
            for weight in learner.family.module.parameters():
                weight.mul_(3)
        return learner

    return make


@torch.no_grad()
def likeliest(learner: Learner, question: str, choices: list[str]) -> int:
    """The choice whose tokens behind the question have the largest sum of log-probabilities; each in a pass of its own."""
    family = learner.family
    module: Any = family.module.eval()
    sums = []
    for choice in choices:
        if family.source.kind == "encoder-decoder":
            source = family.tokenizer(question).input_ids
            answer = family.tokenizer(" " + choice, add_special_tokens=False).input_ids
            decoded = [module.config.decoder_start_token_id, *answer[:-1]]
            logits = module(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([decoded])).logits[0]
        else:
            source = family.tokenizer(question).input_ids
            answer = family.tokenizer(question + " " + choice).input_ids[len(source) :]
            logits = module(input_ids=torch.tensor([source + answer])).logits[0, len(source) - 1 : -1]
        chances = logits.log_softmax(-1)
        sums.append(sum(float(chances[i, token]) for i, token in enumerate(answer)))
    return int(np.argmax(sums))


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-t5"])
def test_its_accuracy_is_that_of_the_likeliest_choice(model: str, learner: Callable[[str], Learner]) -> None:
    learnt = learner(model)
    sequence = learnt.sequence
    store = Store(Path(sequence.out))
    column = len(sequence.tasks)
    assert missing_probes(sequence, 1, store) == [column]
    compute_column(learnt.scored_model(), sequence, learnt.stream, store, 1, column)
    assert learnt.family.module.training
    assert (missing_probes(sequence, 1, store), missing_probes(sequence, 0, store)) == ([], [column])
    (event,) = probe_events(sequence, 1, store)
    chosen = [likeliest(learnt, str(row["question"]), row["choices"]) for row in ROWS]  # type: ignore[arg-type]
    right = [choice == row["answer"] for choice, row in zip(chosen, ROWS, strict=True)]
    assert 0 < sum(right) < len(ROWS), "a score that any model gets"
    assert (event.probe, event.metric, event.n, event.better) == ("films", "acc", len(ROWS), "higher")
    assert event.score == pytest.approx(100 * sum(right) / len(ROWS))


def test_training_never_notices(learner: Callable[[str], Learner], capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is drawn from a global generator, nothing is printed, and no logger stays as the harness wants it."""
    learnt = learner("tiny-llama")
    level = logging.getLogger("lm_eval").level
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    before = (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index,union-attr]
    store = Store(Path(learnt.sequence.out))
    compute_column(learnt.scored_model(), learnt.sequence, learnt.stream, store, 0, 2)
    after = (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index,union-attr]
    assert before == after
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("lm_eval").level == level


def test_the_number_that_is_shown() -> None:
    assert main_metric({"acc": 1.0, "acc_norm": 2.0}) == "acc_norm"
    assert main_metric({"brier": 1.0, "exact_match (strict)": 2.0}) == "exact_match (strict)"
    assert main_metric({"word_perplexity": 1.0, "byte_perplexity": 2.0}) == "word_perplexity"
