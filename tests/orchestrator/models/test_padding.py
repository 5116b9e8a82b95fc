"""Padding: every token keeps its side, and the mask is 1 on tokens alone, whatever their ids."""

from __future__ import annotations

from orchestrator.models.padding import pad_left, pad_right, token_stream


def test_padding_on_either_side() -> None:
    assert pad_right([[5, 6], [7]], 9).tolist() == [[5, 6], [7, 9]]
    assert pad_left([[5, 6], [7]], 9).tolist() == [[5, 6], [9, 7]]


def test_the_mask_does_not_take_a_token_of_the_pads_number_for_padding() -> None:
    stream = token_stream([[0, 6, 0], [7]], pad=0)
    assert stream.ids.tolist() == [[0, 6, 0], [7, 0, 0]]
    assert stream.mask.tolist() == [[1, 1, 1], [1, 0, 0]]
