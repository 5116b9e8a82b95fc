"""The score of a state on a task, and the predictions that are kept beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orchestrator.evaluation.columns import is_complete
from orchestrator.evaluation.scorers import ExactMatch
from orchestrator.evaluation.scores import compute_score, missing_scores, score_answers, score_task
from orchestrator.evaluation.texts import batches_by_length
from orchestrator.models.encoder_decoder import EncoderDecoder
from orchestrator.models.sentence_encoder import EncoderBySimilarity
from orchestrator.planning.recovery import missing_events
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import ScoreComputed
from orchestrator.store.predictions import load_predictions, predictions_file
from orchestrator.store.view import View
from orchestrator.training.learner import Learner
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import train_task
from streams import Example, Task
from tests.conftest import FAMILIES
from tests.orchestrator.models.likelihoods import loss_of, sharpened

WORDS = list(enumerate(["good", "bad", "lovely", "superb", "dirty", "cold", "warm", "noisy"]))
EXAMPLES = [Example("one", "good", 4), Example("two", "bad", 9), Example("three", "good", 2)]


def test_answers_are_scored_one_by_one_and_together() -> None:
    found = score_answers(ExactMatch(), EXAMPLES, [("Good.", "good"), ("good", "bad"), ("neutral", "bad")])
    assert (found.score, found.correct, found.n) == (pytest.approx(100 / 3), 1, 3)
    assert found.score_options == pytest.approx(200 / 3)
    assert [p.correct for p in found.predictions] == [True, False, False]
    assert [(p.example, p.row) for p in found.predictions] == [(0, 4), (1, 9), (2, 2)]
    assert [(p.target, p.prediction, p.option) for p in found.predictions][1] == ("bad", "good", "bad")
    assert found.record() == {
        "score": found.score,
        "score_options": found.score_options,
        "correct": 1,
        "n": 3,
        "interval": (0.0, 100.0),
    }


def test_answers_without_options_have_no_score_among_options() -> None:
    found = score_answers(ExactMatch(), EXAMPLES, [("good", None), ("bad", None), ("good", None)])
    assert (found.score, found.score_options) == (100.0, None)


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-bert"])
def test_a_sequence_keeps_the_predictions_of_every_score(model: str, sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(model=model, stream={"first": 2})
    view = run_sequence(sequence)
    stream = sequence.open_stream()
    root = Path(sequence.out)
    for tasks_seen, keys in enumerate(sequence.score_keys):
        for task_id, key in enumerate(keys):
            predictions = load_predictions(root, key)
            assert predictions is not None
            examples = stream.tasks[task_id].read("test")
            assert [(p.target, p.row) for p in predictions] == [(e.label, e.row) for e in examples]
            mean = 100 * sum(p.score for p in predictions) / len(examples)
            assert mean == view.matrix()[tasks_seen, task_id]
            assert all((p.option is None) == (model == "tiny-t5") for p in predictions)


def test_with_rows_of_seen_tasks_a_later_run_computes_only_what_is_missing(
    sequence_of: Callable[..., SequencePlan],
) -> None:
    """Scores after 0, 1, 2 of two tasks: of seen tasks 0, 1 and 2; then the other 2, 1 and 0."""
    seen = sequence_of(stream={"first": 2}, evaluation={"rows": "seen"})
    all_rows = sequence_of(stream={"first": 2})
    assert (seen.id, seen.score_keys) == (all_rows.id, all_rows.score_keys)
    store = Store(Path(seen.out))
    assert [missing_scores(seen, tasks_seen, store) for tasks_seen in range(3)] == [[], [0], [0, 1]]
    view = run_sequence(seen)
    assert (sorted(view.scores), view.status) == ([(1, 0), (2, 0), (2, 1)], "finished")
    assert (is_complete(seen, store), is_complete(all_rows, store)) == (True, False)
    assert [missing_scores(all_rows, tasks_seen, store) for tasks_seen in range(3)] == [[0, 1], [1], []]
    written = {file.name: file.stat().st_mtime_ns for file in (store.root / "scores").glob("*.json")}
    assert len(written) == 3
    view = run_sequence(all_rows)
    assert (len(view.scores), view.status) == (6, "finished")
    for name, time in written.items():
        assert (store.root / "scores" / name).stat().st_mtime_ns == time
    assert is_complete(all_rows, store)


def test_a_journal_that_lost_scores_gets_those_back_that_were_asked_for(
    sequence_of: Callable[..., SequencePlan],
) -> None:
    run_sequence(sequence_of(stream={"first": 2}))
    seen = sequence_of(stream={"first": 2}, evaluation={"rows": "seen"})
    recovered = missing_events(seen, View(seen.id), Store(Path(seen.out)))
    positions = [(event.tasks_seen, event.task_id) for event in recovered if isinstance(event, ScoreComputed)]
    assert positions == [(1, 0), (2, 0), (2, 1)]


def test_what_is_missing_is_computed_again_and_alike(
    sequence_of: Callable[..., SequencePlan], learner_of: Callable[..., Learner]
) -> None:
    sequence = sequence_of(stream={"first": 2})
    run_sequence(sequence)
    store = Store(Path(sequence.out))
    assert missing_scores(sequence, 0, store) == []
    key = sequence.score_keys[0][1]
    score_file = store.root / "scores" / f"{key}.json"
    before = store.load_score(key)
    predictions_before = predictions_file(store.root, key).read_bytes()
    score_file.unlink()
    predictions_file(store.root, key).unlink()
    assert missing_scores(sequence, 0, store) == [1]
    learner = learner_of(stream={"first": 2})
    compute_score(learner.scored_model(), sequence, learner.stream, store, 0, 1)
    after = store.load_score(key)
    assert before is not None
    assert after is not None
    assert after | {"seconds": 0} == before | {"seconds": 0}
    assert predictions_file(store.root, key).read_bytes() == predictions_before


def test_scores_count_exact_matches(learner_of: Callable[..., Learner], monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_of()
    task = learner.stream.tasks[0]
    examples = task.read("test")
    right = {id(f): e.label for f, e in zip(learner.features(0), examples, strict=False)}
    assert right
    given = iter([e.label.upper() + "." if i % 3 else "wrong" for i, e in enumerate(sorted_by_length(learner))])
    monkeypatch.setattr(
        learner.family, "answers", lambda task, features, device: [(next(given), None) for _ in features]
    )
    score = score_task(learner.scored_model(), task, "test", 4)
    assert (score.n, score.correct) == (10, 6)
    assert score.score == pytest.approx(60.0)
    assert score.score_options is None


def sorted_by_length(learner: Learner) -> list[Example]:
    """The test examples in the order in which they are scored."""
    task = learner.stream.tasks[0]
    examples = task.read("test")
    features = learner.family.features(task, examples)
    return [examples[i] for i in sorted(range(len(examples)), key=lambda i: len(features[i]["source"]))]


def test_the_batch_size_of_scoring_changes_nothing(learner_of: Callable[..., Learner]) -> None:
    for model in FAMILIES:
        learner = learner_of(model=model, training={"epochs": 3})
        train_task(learner, 0, lambda event: None)
        scores = [score_task(learner.scored_model(), learner.stream.tasks[0], "test", batch) for batch in (1, 3, 10)]
        assert scores[0] == scores[1] == scores[2]


@torch.no_grad()
def asked_alone(learner: Learner, task: Task) -> list[str]:
    """The answers of a plain loop: each example is tokenised anew, alone and without padding."""
    family = learner.family
    answers = []
    for example in task.read("test"):
        (feature,) = family.features(task, [example])
        source = torch.tensor([feature["source"]])
        inputs = {"input_ids": source, "attention_mask": torch.ones_like(source)}
        with learner.precision():
            if isinstance(family, EncoderDecoder):
                limit = family.max_new_tokens(task)
                written = family.module.generate(**inputs, max_new_tokens=limit, do_sample=False)  # type: ignore[operator]
                answer = written[0, 0 if family.source.kind == "encoder-decoder" else source.shape[1] :]
                answers.append(family.tokenizer.decode(answer, skip_special_tokens=True))
                continue
            if isinstance(family, EncoderBySimilarity):
                nearest = []
                for ids in family.option_ids:
                    option = torch.tensor([ids])
                    nearest.append(
                        float(family.module(**inputs, option_ids=option, option_mask=torch.ones_like(option)))
                    )
                answers.append(family.labels[nearest.index(max(nearest))])
                continue
            answers.append(family.labels[int(family.module(**inputs).logits.argmax())])
    return answers


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(
    ("model", "scoring"),
    [("tiny-t5", "auto"), ("tiny-llama", "auto"), ("tiny-bert", "head"), ("tiny-bert", "similarity")],
)
def test_predictions_are_those_of_a_plain_loop(
    model: str,
    scoring: str,
    precision: str,
    learner_of: Callable[..., Learner],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T5 and BERT read padding on the right, Llama on the left; batches of at most four examples of different length."""
    learner = learner_of(model=model, scoring=scoring, precision=precision, stream={"max_test": 24})
    family = learner.family
    task = learner.stream.tasks[0]
    # as they are drawn, the weights are so small that most texts have one answer
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in family.module.parameters():
            if weight.ndim > 1:
                weight.copy_(2 * torch.randn(weight.shape, generator=rng) / weight.shape[1] ** 0.5)
    lengths = sorted(len(feature["source"]) for feature in family.features(task, task.read("test")))
    monkeypatch.setattr("orchestrator.evaluation.texts.TOKENS_ON_CPU", 4 * lengths[-1] - 1)
    batches = list(batches_by_length(lengths, 4, on_cpu=True))
    assert {len(batch) for batch in batches} >= {3, 4}
    assert any(lengths[batch[0]] != lengths[batch[-1]] for batch in batches), "nothing is padded"
    for _ in range(2):
        score = score_task(learner.scored_model(), task, "test", 4)
        family.module.eval()
        expected = asked_alone(learner, task)
        assert [prediction.prediction for prediction in score.predictions] == expected
    assert len(set(expected)) > 2


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-llama"])
def test_perplexity_and_bits_per_byte_are_of_a_plain_loops_cross_entropy(
    model: str, learner_of: Callable[..., Learner]
) -> None:
    learner = learner_of(model=model, stream={"first": 1, "scorer": "perplexity"})
    task = learner.stream.tasks[0]
    # open answers of several lengths, in three batches that do not keep the order of the examples
    rows = [Example(f"the room was {word} {'and cold ' * i}", " ".join([word] * (i % 3 + 1)), i) for i, word in WORDS]
    task = replace(task, labels=(), load=lambda split: rows)
    sharpened(learner.family)
    examples = task.read("test")
    losses = []
    num_tokens = 0
    num_bytes = 0
    for feature, example in zip(learner.family.features(task, examples), examples, strict=True):
        losses.append(loss_of(learner.family, feature["source"], feature["target"]))
        num_tokens += len(feature["target"])
        num_bytes += len(example.label.encode())
    found = score_task(learner.scored_model(), task, "test", batch_size=3)
    # such weights are far from sure of anything: exp would make much of a last bit
    assert math.log(found.score) == pytest.approx(sum(losses) / num_tokens, rel=1e-4)
    assert (found.correct, found.n, found.score_options) == (0, len(rows), None)
    bits = score_task(learner.scored_model(), replace(task, scorer="bits-per-byte"), "test", batch_size=3)
    assert bits.score == pytest.approx(sum(losses) / math.log(2) / num_bytes, rel=1e-4)
    # each example's own number, in the order of the split
    for prediction, example, loss in zip(bits.predictions, examples, losses, strict=True):
        assert prediction.target == example.label
        assert prediction.score == pytest.approx(loss / math.log(2) / len(example.label), rel=1e-4)
    assert learner.family.module.training


def test_a_task_that_comes_again_is_scored_once(sequence_of: Callable[..., SequencePlan]) -> None:
    stream = {"scenario": {"name": "order", "tasks": ["reviews", "headlines", "reviews", "reviews"]}}
    sequence = sequence_of(stream=stream)
    assert missing_scores(sequence, 1, Store(Path(sequence.out))) == [0, 1]


@pytest.mark.parametrize("scoring", ["rank", "constrained"])
def test_a_state_that_was_trained_for_free_answers_is_scored_by_choices_too(
    scoring: str, sequence_of: Callable[..., SequencePlan]
) -> None:
    run_sequence(sequence_of(stream={"first": 1}))
    sequence = sequence_of(stream={"first": 1}, scoring=scoring)
    view = run_sequence(sequence)
    checkpoint = view.by_task[0].checkpoint
    assert checkpoint is not None and checkpoint.reused
    predictions = load_predictions(Path(sequence.out), sequence.score_keys[1][0])
    assert predictions is not None
    labels = sequence.open_stream().tasks[0].labels
    assert {prediction.prediction for prediction in predictions} <= set(labels)
    assert view.matrix()[1, 0] == 100 * sum(p.prediction == p.target for p in predictions) / len(predictions)
