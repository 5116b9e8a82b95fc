"""The part of a model that reads: which it is, its arguments by name, and a pass that hooks leave alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from methods.shared.reader import ModelReader, mean_over_tokens
from orchestrator.training.learner import Learner
from tests.conftest import FAMILIES


def test_the_mean_leaves_padding_out() -> None:
    states = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]]])
    assert mean_over_tokens(states, torch.tensor([[1, 1, 0]])).tolist() == [[2.0, 4.0]]
    assert mean_over_tokens(states, torch.tensor([[0, 0, 0]])).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("model", FAMILIES)
def test_it_reads_what_the_model_reads(model: str, learner_of: Callable[..., Learner]) -> None:
    module = learner_of(model=model).family.module
    reader = ModelReader(module)
    ids = torch.tensor([[5, 6, 7], [8, 9, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    found = reader.named((ids,), {"attention_mask": mask})
    assert torch.equal(found["input_ids"], ids)
    embeds, same_mask = reader.inputs(found)
    assert torch.equal(embeds, reader.embeddings.weight[ids])
    assert torch.equal(same_mask, mask)
    assert reader.inputs({"input_ids": ids})[1].tolist() == [[1, 1, 1], [1, 1, 1]]
    module.eval()
    with torch.no_grad():
        expected = reader.module(input_ids=ids, attention_mask=mask).last_hidden_state
    seen = []
    reader.module.register_forward_pre_hook(lambda *_: seen.append(reader.bare))
    module.train()
    states = reader.read_bare(embeds, mask)
    torch.testing.assert_close(states[mask == 1], expected[mask == 1])
    assert not states.requires_grad
    assert seen == [True]
    assert reader.module.training and not reader.bare
