"""The order of examples and its cut into micro-batches."""

from __future__ import annotations

import pytest

from orchestrator.training.batches import cut_by_length, global_batches, micro_batches, steps_in_epoch


def test_every_example_is_seen_and_every_batch_is_full() -> None:
    batches = list(global_batches(21, 8, seed=1, task=0, epoch=0))
    assert [len(b) for b in batches] == [8, 8, 8]
    flat = [i for b in batches for i in b]
    assert sorted(flat[:21]) == list(range(21))
    assert flat[21:] == flat[:3], "the last batch is filled from the start"
    assert steps_in_epoch(21, 8) == 3


def test_fewer_examples_than_a_batch() -> None:
    (batch,) = global_batches(3, 8, seed=1, task=0, epoch=0)
    assert [batch.count(i) for i in range(3)] in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


def test_the_order_is_a_function_of_seed_task_and_epoch() -> None:
    def order(*seed_task_epoch: int) -> list[list[int]]:
        return list(global_batches(50, 10, *seed_task_epoch))

    assert order(1, 2, 3) == order(1, 2, 3)
    assert len({str(order(*other)) for other in ((1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4))}) == 4


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_all_workers_together_make_the_same_micro_batches(workers: int) -> None:
    batch = list(range(100, 116))
    made = [piece for rank in range(workers) for piece in micro_batches(batch, 4, rank, workers)]
    assert sorted(made) == [(i, batch[4 * i : 4 * i + 4]) for i in range(4)]
    assert len({len(micro_batches(batch, 4, rank, workers)) for rank in range(workers)}) == 1


def test_texts_of_like_length_are_cut_together() -> None:
    words = ["ccc", "a", "bbbb", "dd", "e", "ff"]
    assert cut_by_length(words, 2, len) == ["a", "e", "dd", "ff", "ccc", "bbbb"]
    assert cut_by_length(words, 6, len) == words, "what is read at once needs no order"
    assert words[0] == "ccc", "the batch itself stays"


def test_less_of_a_batch_is_padding() -> None:
    """Lengths as in real text: many short and a few long."""
    lengths = [8 + (i * i * 37) % 250 for i in range(64)]

    def padded(order: list[int]) -> int:
        return sum(4 * max(order[i : i + 4]) for i in range(0, 64, 4))

    real = sum(lengths)
    assert 1 - real / padded(lengths) > 0.3
    assert 1 - real / padded(cut_by_length(lengths, 4, int)) < 0.1
