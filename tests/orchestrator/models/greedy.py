"""Greedy decoding written anew: one example without padding, a whole forward pass for each token."""

from __future__ import annotations

import torch

from orchestrator.models.family import Family
from orchestrator.training.learner import Learner

CPU = torch.device("cpu")


def decode(family: Family, source: list[int], max_new_tokens: int) -> str:
    """The answer to one example."""
    end = family.tokenizer.eos_token_id
    written: list[int] = []
    for _ in range(max_new_tokens):
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


@torch.no_grad()
def assert_answers_are_greedy(learner: Learner) -> None:
    """Compare the answers to test examples of different lengths, by weights with which each text has an answer of its own."""
    family = learner.family
    family.module.eval()
    # as they are drawn, the weights are so small that all texts have one answer
    for weight in family.module.parameters():
        weight.mul_(3)
    task = learner.stream.tasks[0]
    features = family.features(task, task.read("test"))
    assert len({len(feature["source"]) for feature in features}) > 1, "nothing is padded"
    answers = [answer for answer, _ in family.answers(task, features, CPU)]
    assert len(set(answers)) > 5
    longest = family.max_new_tokens(task)  # type: ignore[attr-defined]
    assert answers == [decode(family, feature["source"], longest) for feature in features]
