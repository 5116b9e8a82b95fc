"""Pairs: padding, losses and the stable number, by hand."""

from __future__ import annotations

import math

import torch

from methods.batch import IGNORED
from methods.prompts.pairs import distances, padded, stable_number, token_means


def test_losses_by_hand() -> None:
    labels = torch.tensor([[0, 1], [1, IGNORED]])
    logits = torch.log(torch.tensor([[[0.5, 0.5], [0.75, 0.25]], [[0.9, 0.1], [0.5, 0.5]]]))
    expected = torch.tensor([(math.log(2) + math.log(4)) / 2, -math.log(0.1)])
    torch.testing.assert_close(token_means(logits, labels), expected)
    teacher = torch.log(torch.tensor([[[0.5, 0.5], [0.75, 0.25]], [[0.5, 0.5], [0.1, 0.9]]]))
    second = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    torch.testing.assert_close(distances(teacher, logits, labels), torch.tensor([0.0, second]))


def test_padding_stands_behind_the_shorter_sequences() -> None:
    assert padded([[1], [2, 3]], IGNORED, torch.device("cpu")).tolist() == [[1, IGNORED], [2, 3]]


def test_the_number_is_that_of_the_printed_parts() -> None:
    """Checkpoints hold such numbers, so they must not change: the first 7 bytes of sha256("([5, 1],)")."""
    assert stable_number([5, 1]) == 9244166833699217
    assert stable_number([5, 1]) != stable_number([5], [1])
