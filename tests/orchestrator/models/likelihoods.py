"""-log p of answers computed anew: one example without padding or cache, one forward pass over the whole."""

from __future__ import annotations

import torch

from orchestrator.models.family import Family

CPU = torch.device("cpu")


@torch.no_grad()
def loss_of(family: Family, source: list[int], answer: list[int]) -> float:
    """-log p of an answer's tokens given a prompt, from the probabilities themselves."""
    if family.source.kind == "encoder-decoder":
        start = [family.module.config.decoder_start_token_id, *answer[:-1]]  # type: ignore[union-attr]
        logits = family.module(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([start])).logits[0]
    else:
        read = source + answer[:-1]
        logits = family.module(input_ids=torch.tensor([read])).logits[0, len(source) - 1 :]
    total = 0.0
    for position, token in enumerate(answer):
        total -= float(torch.log(torch.softmax(logits[position].double(), 0)[token]))
    return total


@torch.no_grad()
def sharpened(family: Family) -> Family:
    """The family in evaluation, by weights with which texts differ: as they are drawn, all have nearly the same losses."""
    family.module.eval()
    for weight in family.module.parameters():
        weight.mul_(3)
    return family


@torch.no_grad()
def assert_losses_are_the_loops(family: Family) -> None:
    """Compare the losses of answers of different lengths to prompts of different lengths, of which nothing is left behind."""
    sharpened(family)
    features = [
        {"source": [5, 6, 7, 9, 4], "target": [8, 2], "class_index": 0},
        {"source": [9, 3], "target": [10, 11, 12, 2], "class_index": 1},
        {"source": [12, 13, 14], "target": [2], "class_index": 0},
    ]
    prompts = family.read(features, CPU)  # type: ignore[arg-type]
    for answers in ([[8, 2], [10, 11, 12, 2], [2]], [[7, 2]] * 3, [[2]] * 3, [[8, 2], [10, 11, 12, 2], [2]]):
        expected = []
        for feature, answer in zip(features, answers, strict=True):
            expected.append(loss_of(family, feature["source"], answer))  # type: ignore[arg-type]
        torch.testing.assert_close(family.answer_losses(prompts, answers), torch.tensor(expected), rtol=1e-4, atol=1e-4)
    assert max(expected) > 2 * min(expected)
