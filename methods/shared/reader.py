"""The part of a model that reads what is given, for methods that look at or change its inputs before it runs.

Shapes: B examples, S tokens, d the width of the embeddings.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

# The argument and result that hold a decoder's keys and values of what it has read; before transformers 5.24 the second
CACHE_NAMES = ("cache", "past_key_values")


def cache_name(model: nn.Module) -> str:
    """What a model calls its cache of keys and values."""
    parameters = inspect.signature(model.forward).parameters
    for name in CACHE_NAMES:
        if name in parameters:
            return name
    raise ValueError(f"{type(model).__name__} has no cache of what it has read")


class ModelReader:
    """The encoder of an encoder-decoder, else the transformer below the head; `module` is what reads, `inner` the whole."""

    def __init__(self, model: nn.Module) -> None:
        from transformers import PreTrainedModel

        # a sentence encoder wraps the model of transformers in a module of ours
        self.inner: Any = next(module for module in model.modules() if isinstance(module, PreTrainedModel))
        self.has_decoder = bool(self.inner.config.is_encoder_decoder)
        self.causal = not self.has_decoder and bool(self.inner.can_generate())
        self.module: nn.Module = self.inner.base_model
        if self.has_decoder:
            self.module = self.inner.get_encoder()
        self.bare = False

    @property
    def embeddings(self) -> nn.Embedding:
        """The token embeddings."""
        found = self.module.get_input_embeddings()  # type: ignore[operator]
        assert isinstance(found, nn.Embedding)
        return found

    def named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments of a call by name: some callers in transformers give the token ids by position."""
        names = list(inspect.signature(self.module.forward).parameters)
        return {**dict(zip(names, args, strict=False)), **kwargs}

    def inputs(self, kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Embeddings [B, S, d] and mask [B, S] of a call whose arguments are named."""
        embeds = kwargs.get("inputs_embeds")
        if embeds is None:
            embeds = self.embeddings(kwargs["input_ids"])
        mask = kwargs.get("attention_mask")
        if mask is None:
            mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
        return embeds, mask

    @staticmethod
    def is_continued(kwargs: Mapping[str, Any]) -> bool:
        """Whether a call reads on from a cache, as generation does from its second token on."""
        for name in CACHE_NAMES:
            cache = kwargs.get(name)
            if cache is not None:
                return bool(cache.get_seq_length() > 0)
        return False

    @torch.no_grad()
    def read_bare(self, embeds: Tensor, mask: Tensor) -> Tensor:
        """The last states [B, S, d], without dropout and without what a method's own hooks add."""
        inputs = {"inputs_embeds": embeds, "attention_mask": mask}
        # a decoder's padding may come first, and transformers would count it as positions
        if self.causal:
            inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
        was_training = self.module.training
        # `bare` tells the method's hooks, which run in this pass too, to leave it alone
        self.bare = True
        self.module.eval()
        try:
            states: Tensor = self.module(**inputs).last_hidden_state
        finally:
            self.bare = False
            self.module.train(was_training)
        return states


def mean_over_tokens(states: Tensor, mask: Tensor) -> Tensor:
    """[B, d], padding left out."""
    weight = mask.unsqueeze(-1).to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1).clamp(min=1)
