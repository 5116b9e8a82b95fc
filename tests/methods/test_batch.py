"""The typed batch: selecting examples, its answers, and what belongs to no example."""

from __future__ import annotations

import torch

from methods import Batch, TokenStream
from tests.methods import toy

LABELS = torch.tensor([[-100, -100, 5, 6], [-100, 7, -100, -100]])
SOURCE = TokenStream(torch.arange(8).view(2, 4), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]))


def decoder_batch() -> Batch:
    return Batch(source=SOURCE, labels=LABELS, classes=torch.tensor([3, 4]), example_indices=[8, 9])


def test_the_answer_of_a_decoder_is_no_text() -> None:
    batch = decoder_batch()
    assert batch.answer_in_source
    assert batch.text_mask().tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]


def test_targets_as_wide_as_the_source_are_told_apart() -> None:
    """Every shape agrees; only the names of the streams say that the labels lie beside the target."""
    batch = decoder_batch().replace(target=TokenStream(SOURCE.ids + 100, torch.ones(2, 4, dtype=torch.long)))
    assert not batch.answer_in_source
    assert torch.equal(batch.text_mask(), SOURCE.mask)
    assert torch.equal(batch.stream("target").ids, SOURCE.ids + 100)
    assert [name for name, _ in batch.token_streams()] == ["source", "target"]


def test_selecting_examples_keeps_what_belongs_to_none() -> None:
    options = TokenStream(torch.zeros(2, 4, dtype=torch.long), torch.ones(2, 4, dtype=torch.long))
    batch = decoder_batch().replace(options=options, loss_weight=0.25, target=SOURCE)
    second = batch.select(slice(1, 2))
    assert second.source.ids.tolist() == [[4, 5, 6, 7]]
    assert second.source.mask.tolist() == [[1, 1, 0, 0]]
    assert second.target is not None
    assert second.target.ids.tolist() == [[4, 5, 6, 7]]
    assert second.labels.tolist() == [[-100, 7, -100, -100]]
    assert second.classes.tolist() == [4]
    assert second.example_indices == [9]
    assert second.options is options
    assert second.loss_weight == 0.25


def test_moving_to_a_device_moves_every_tensor() -> None:
    batch = decoder_batch().replace(options=SOURCE, target=SOURCE).to(torch.device("meta"))
    assert batch.answers is not None
    tensors = [batch.labels, batch.classes, batch.answers]
    for _, stream in batch.token_streams():
        tensors += [stream.ids, stream.mask]
    assert len(tensors) == 9
    assert all(tensor.is_meta for tensor in tensors)


def test_a_classifiers_labels_are_beside_no_token() -> None:
    assert not toy.batch().answer_in_source


def test_answers_are_found_from_the_labels() -> None:
    batch = decoder_batch()
    assert batch.answers is not None
    assert batch.answers.tolist() == [2, 3, 5]
    assert batch.first_answer == 1
    assert batch.answer_tokens().tolist() == [5, 6, 7]
    assert batch.answers_by_example() == [2, 1]
    second = batch.select(slice(1, 2))
    assert second.answers is not None and second.answers.tolist() == [1]
    first = batch.select(slice(0, 1))
    assert first.first_answer == 2
    others = batch.replace(labels=torch.tensor([[-100, 8, -100, -100]]))
    assert others.answer_tokens().tolist() == [8]
    assert batch.replace(loss_weight=0.5).answers is batch.answers
    none = batch.replace(labels=torch.full((1, 4), -100))
    assert none.answers is not None and len(none.answers) == none.first_answer == 0


def test_of_a_classifier_each_example_is_an_answer() -> None:
    batch = toy.batch()
    assert batch.answers is None
    assert torch.equal(batch.answer_tokens(), toy.LABELS)
    assert batch.answers_by_example() == [1, 1, 1, 1]
