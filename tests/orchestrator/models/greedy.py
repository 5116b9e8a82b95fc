"""Greedy decoding written anew: one example without padding, a whole forward pass for each token."""

from __future__ import annotations

import torch

from orchestrator.models.family import Family
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task

CPU = torch.device("cpu")


def decode(family: Family, source: list[int]) -> str:
    """The answer to one example, of at most four tokens."""
    end = family.tokenizer.eos_token_id
    written: list[int] = []
    for _ in range(4):
        with torch.no_grad():
            if family.source.kind == "encoder-decoder":
                start = [family.module.config.decoder_start_token_id, *written]  # type: ignore[union-attr]
                logits = family.module(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([start])).logits
            else:
                logits = family.module(input_ids=torch.tensor([source + written])).logits
        token = int(logits[0, -1].argmax())
        if token == end:
            break
        written.append(token)
    text: str = family.tokenizer.decode(written, skip_special_tokens=True)
    return text


def assert_answers_are_greedy(learner: Learner) -> None:
    """Train a task, and compare the answers to its first test examples, which are of different lengths."""
    train_task(learner, 0, lambda event: None)
    family = learner.family
    task = learner.stream.tasks[0]
    family.module.eval()
    features = family.features(task, task.read("test"))
    assert len({len(feature["source"]) for feature in features[:5]}) > 1, "nothing is padded"
    answers = [answer for answer, _ in family.answers(task, features, CPU)]
    for feature, answer in list(zip(features, answers, strict=True))[:5]:
        assert answer.strip() == decode(family, feature["source"]).strip()
    assert len({*answers}) > 1 or answers[0].strip() in task.labels
