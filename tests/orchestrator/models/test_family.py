"""How each family reads, computes its loss and answers."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from orchestrator.evaluation.scores import score_task
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from streams import Example, Prompt
from tests.conftest import FAMILIES

CPU = torch.device("cpu")


@pytest.mark.parametrize("model", [*FAMILIES, "tiny-roberta"])
def test_the_masks_of_a_batch_mark_the_tokens(model: str, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model=model)
    features = learner.features(0)
    for count in range(1, 9):
        batch = learner.family.collate(features[:count])
        assert batch.source.mask.sum() == sum(
            len(f["source"]) + (len(f["target"]) if model == "tiny-llama" else 0) for f in features[:count]
        )
        if model == "tiny-t5":
            assert batch.target.mask.sum() == sum(len(f["target"]) for f in features[:count])
            assert torch.equal(batch.target.mask.bool(), batch.labels != -100)


@pytest.mark.parametrize("model", FAMILIES)
def test_a_long_text_is_shortened_and_its_question_kept(model: str, learner_of: Callable[..., Learner]) -> None:
    family = learner_of(model=model).family
    prompt = Prompt("Task:Topic ", " ".join(["profit"] * 200), " Answer:")
    (ids,) = family.encode([prompt])
    assert 46 <= len(ids) <= family.config.max_source == 48
    text = family.tokenizer.decode(ids, skip_special_tokens=True)
    assert text.strip().startswith("Task:Topic profit")
    assert text.strip().endswith("Answer:")
    short = family.encode([Prompt("a ", "b", " c")])[0]
    assert short == family.tokenizer("a b c").input_ids


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-llama"])
def test_greedy_answers_equal_a_step_by_step_search(model: str, learner_of: Callable[..., Learner]) -> None:
    learner = learner_of(model=model, stream={"max_train": 80}, training={"epochs": 3, "lr": 3e-3})
    train_task(learner, 0, lambda event: None)
    family, task = learner.family, learner.stream.tasks[0]
    family.module.eval()
    examples = task.read("test")
    features = family.features(task, examples)
    answers = [a for a, _ in family.answers(task, features, CPU)]
    for feature, answer in list(zip(features, answers, strict=True))[:5]:
        assert answer.strip() == search(family, feature["source"]).strip()
    assert len({*answers}) > 1 or answers[0].strip() in task.labels


def search(family, source: list[int]) -> str:  # type: ignore[no-untyped-def]
    """Greedy decoding of one unpadded example, a whole forward pass for each token."""
    end, out = family.tokenizer.eos_token_id, []
    for _ in range(4):
        with torch.no_grad():
            if family.source.kind == "encoder-decoder":
                start = [family.module.config.decoder_start_token_id, *out]
                logits = family.module(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([start])).logits
            else:
                logits = family.module(input_ids=torch.tensor([source + out])).logits
        token = int(logits[0, -1].argmax())
        out.append(token)
        if token == end:
            break
    text: str = family.tokenizer.decode(out[:-1] if out[-1] == end else out, skip_special_tokens=True)
    return text


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


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-llama"])
def test_families_that_generate_need_no_label_set(model: str, learner_of: Callable[..., Learner]) -> None:
    family = learner_of(model=model).family
    free = SimpleNamespace(name="summaries", labels=(), prompt=lambda text: Prompt("", text, " Answer:"))
    features = family.features(free, [Example("a long text", "what it says")])  # type: ignore[arg-type]
    batch = family.collate(features)
    assert batch.classes.tolist() == [-1]
    assert torch.isfinite(family.forward(family.module, batch)[0])
    assert family.max_new_tokens(free) == family.config.max_target == 8  # type: ignore[attr-defined]
