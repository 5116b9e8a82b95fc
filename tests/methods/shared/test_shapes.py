"""What is known of a model on the meta device: which layers run, and whether they give one vector for each token."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods import Batch, Context, TokenStream
from methods.shared.shapes import check_outputs
from methods.shared.token_streams import Reading


class Reader(nn.Module):
    """Embeds tokens and calls a layer on them, as `read` says; on the meta device."""

    def __init__(self, read: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.read = read
        self.embedding = nn.Embedding(20, 4, device="meta")
        self.first = nn.Linear(4, 4, device="meta")
        self.second = nn.Linear(4, 4, device="meta")

    def forward(self, ids: Tensor) -> Tensor:
        return self.read(self, self.embedding(ids))


def stream(*shape: int) -> TokenStream:
    """Tokens without padding."""
    return TokenStream(torch.ones(shape, dtype=torch.long), torch.ones(shape, dtype=torch.long))


def check(read: Callable[[Any, Tensor], Tensor], *names: str) -> Reader:
    """Check layers of a reader of two texts of three tokens."""
    model = Reader(read)
    zeros = torch.zeros(2, dtype=torch.long)

    def forward(module: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        assert batch.source.ids.device.type == "meta"
        logits = module(batch.source.ids)
        return logits.sum(), logits

    layers = {name: model.get_submodule(name) for name in names}
    try:
        check_outputs(
            Context(0, forward=forward), model, layers, Batch(source=stream(2, 3), labels=zeros, classes=zeros)
        )
    finally:
        for layer in layers.values():
            assert not layer._forward_hooks, "a hook is left"
        assert logging.getLogger("torch._subclasses.fake_tensor").level == logging.NOTSET
    return model


def test_layers_that_read_every_token_pass_without_a_value() -> None:
    model = check(lambda model, x: model.second(model.first(x)), "first", "second")
    assert model.first.weight.device.type == "meta"


def test_tokens_of_all_texts_as_one_list_pass() -> None:
    """As OPT's feed-forward layers read them."""
    check(lambda model, x: model.first(x.flatten(0, 1)), "first")
    with pytest.raises(ValueError, match=r"layer 'first': activations of shape \(5, 4\) do not fit the mask \(2, 3\)"):
        check(lambda model, x: model.first(x.flatten(0, 1)[1:]), "first")


def test_a_layer_whose_weight_is_taken_without_running_it_is_refused() -> None:
    """As fast kernels of Mamba do."""
    with pytest.raises(ValueError, match="layer 'second' does not run as a layer, so its activations are unknown"):
        check(lambda model, x: model.first(x) @ model.second.weight, "first", "second")


def test_a_layer_that_reads_something_else_than_the_tokens_is_refused() -> None:
    """As DeBERTa's projections read relative positions."""
    with pytest.raises(
        ValueError, match=r"layer 'second': activations of shape \(2, 6, 4\) do not fit the mask \(2, 3\)"
    ):
        check(lambda model, x: model.second(torch.cat([model.first(x), x], dim=1)), "first", "second")


def test_what_depends_on_values_is_left_to_the_first_step() -> None:
    """As a mixture of experts chooses: what runs after the choice cannot be known, so nothing is refused."""

    reached = []

    def read(model: Any, x: Tensor) -> Tensor:
        chosen = model.first(x).sum()
        reached.append("the choice")
        if chosen > 0:
            return x
        reached.append("what comes after it")
        return model.second(x)  # type: ignore[no-any-return]

    check(read, "first", "second")
    assert reached == ["the choice"], "so the second layer, which never ran, was not held against the model"


def test_an_encoder_of_two_streams_is_measured_by_the_one_that_it_reads() -> None:
    """A sentence encoder reads the texts and then the five label texts, of two tokens each."""
    model = Reader(lambda model, x: model.first(x))
    model.reading = Reading()  # type: ignore[assignment]
    zeros = torch.zeros(2, dtype=torch.long)
    batch = Batch(source=stream(2, 3), options=stream(5, 2), labels=zeros, classes=zeros)

    def forward(module: Any, batch: Batch, is_told: bool = True) -> tuple[Tensor, Tensor]:
        assert batch.options is not None
        module(batch.source.ids)
        with model.reading.switched_to("options" if is_told else "source"):  # type: ignore[union-attr, operator]
            logits = module(batch.options.ids)
        return logits.sum(), logits

    check_outputs(Context(0, forward=forward), model, {"first": model.first}, batch)
    silent = Context(0, forward=lambda module, batch: forward(module, batch, is_told=False))
    with pytest.raises(ValueError, match=r"activations of shape \(5, 2, 4\) do not fit the mask \(2, 3\)"):
        check_outputs(silent, model, {"first": model.first}, batch)
