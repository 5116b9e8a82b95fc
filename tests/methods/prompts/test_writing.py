"""Writing samples: how tokens are drawn, and how text and answer are read back."""

from __future__ import annotations

import math

import pytest
import torch

from methods.prompts.writing import draw_samples, read_sample


def test_what_is_written_is_text_and_answer() -> None:
    assert read_sample([5, 6, 1, 7, 1, 1], end=1) == ([5, 6], [7, 1])
    for tokens in ([5, 6, 7], [5, 1, 7, 8], [1, 7, 1], [5, 1, 1]):
        assert read_sample(tokens, end=1) is None


def test_sampling_draws_among_the_likeliest() -> None:
    scores = torch.tensor([[0.0, 5.0, 4.0, -1.0]]).repeat(200, 1)
    samples = draw_samples(lambda last: scores, 4, 2, end=3, rng=torch.Generator().manual_seed(0))
    assert samples.shape == (200, 4)
    assert set(samples.flatten().tolist()) == {1, 2}
    share = (samples == 1).double().mean().item()
    assert share == pytest.approx(math.e / (1 + math.e), abs=0.05)
    again = draw_samples(lambda last: scores, 4, 2, end=3, rng=torch.Generator().manual_seed(0))
    assert torch.equal(samples, again)
    ended = draw_samples(lambda last: scores, 6, 1, end=1, rng=torch.Generator().manual_seed(0))
    assert set(ended.flatten().tolist()) == {1}
    assert ended.shape == (200, 6)


def test_after_its_second_end_a_sample_goes_on_with_it() -> None:
    """Sample 0 would draw 1, 2, 1, 2, 2; sample 1 draws 2 all the time; the end is 1."""
    calls: list[int] = []

    def next_scores(last: torch.Tensor | None) -> torch.Tensor:
        calls.append(len(calls))
        likes_one = len(calls) in (1, 3)
        first = [0.0, 9.0, 0.0] if likes_one else [0.0, 0.0, 9.0]
        return torch.tensor([first, [0.0, 0.0, 9.0]])

    samples = draw_samples(next_scores, 5, 1, end=1, rng=torch.Generator().manual_seed(0))
    assert samples.tolist() == [[1, 2, 1, 1, 1], [2, 2, 2, 2, 2]]
    assert len(calls) == 5
