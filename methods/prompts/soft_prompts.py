"""Soft prompts: trained vectors that stand among a model's input embeddings, for training, scoring and generation alike.

Shapes: B examples, S tokens, P vectors, d the width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from methods.batch import IGNORED, Batch
from methods.shared.reader import ModelReader
from methods.shared.shards import whole

# [B, P, d] for the token embeddings [B, S, d] and their mask [B, S]; P may be 0
Prompts = Callable[[Tensor, Tensor], Tensor]


class PromptedModel:
    """Puts prompts before the tokens of everything that the model reads, by hooks on its encoder or decoder.

    Encoder-decoders attend to the prompts in the encoder and from the decoder. In a decoder they come before the text,
    padding included, and in an encoder behind the first token, which classifiers look at; both give back the states of the
    tokens alone, so that nothing that follows needs to know.
    """

    def __init__(self, model: nn.Module, prompts: Prompts) -> None:
        self.prompts = prompts
        self.length = 0  # vectors before what is being read, or was read last
        self.added = 0  # of these, how many the running pass itself reads; the others are in its cache
        self.start = 0  # the tokens that stand before the prompts
        self.model_reader = ModelReader(model)
        if self.model_reader.has_decoder:
            # the encoder keeps the prompts' states, so the decoder needs a mask that covers them
            decoder = self.model_reader.inner.get_decoder()
            decoder.register_forward_pre_hook(self._before_decoder, with_kwargs=True)
        else:
            if not self.model_reader.causal:
                self.start = 1
            self.reader.register_forward_hook(self._after_reader)
        self.reader.register_forward_pre_hook(self._before_reader, with_kwargs=True)

    @property
    def reader(self) -> nn.Module:
        """The module that reads the tokens."""
        return self.model_reader.module

    @property
    def embeddings(self) -> nn.Embedding:
        """The token embeddings."""
        return self.model_reader.embeddings

    def read_bare(self, embeds: Tensor, mask: Tensor) -> Tensor:
        """The reader's last states [B, S, d] without prompts and without dropout."""
        return self.model_reader.read_bare(embeds, mask)

    def _before_reader(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self.model_reader.bare:
            return None
        # by name, the token ids can be replaced below
        kwargs = self.model_reader.named(args, kwargs)
        # once generation has a cache, it holds the prompts: a second copy of them would stand between the tokens
        if self.model_reader.is_continued(kwargs):
            self.added = 0
            return (), self._shifted(kwargs)
        return (), self._prompted(kwargs)

    def _prompted(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The inputs with prompts among them."""
        embeds, mask = self.model_reader.inputs(kwargs)
        # else `torch.cat` would raise the embeddings to the precision of the prompts
        vectors = self.prompts(embeds, mask).to(embeds.dtype)
        self.length = vectors.shape[1]
        self.added = self.length
        if not self.length:
            return kwargs
        self._check_length(embeds.shape[1])
        ones = mask.new_ones(vectors.shape[:2])
        cut = self.start
        # transformers refuses token ids beside embeddings
        kwargs = {
            **kwargs,
            "input_ids": None,
            "inputs_embeds": torch.cat([embeds[:, :cut], vectors, embeds[:, cut:]], dim=1),
            "attention_mask": torch.cat([mask[:, :cut], ones, mask[:, cut:]], dim=1),
        }
        position_ids = kwargs.get("position_ids")
        # given where padding comes first, as in generation; else the model counts from its embeddings
        if position_ids is not None:
            prompt_positions = torch.arange(self.length, device=embeds.device).expand(len(embeds), -1)
            kwargs["position_ids"] = torch.cat([prompt_positions, position_ids + self.length], dim=1)
        return kwargs

    def _check_length(self, tokens: int) -> None:
        """Raises ValueError where a model with learned positions has none for so long an input."""
        table = getattr(getattr(self.reader, "embeddings", None), "position_embeddings", None)
        if not isinstance(table, nn.Embedding):
            return
        most = table.num_embeddings
        # RoBERTa's positions start behind the padding's index
        if table.padding_idx is not None:
            most -= table.padding_idx + 1
        if tokens + self.length > most:
            raise ValueError(
                f"{tokens} tokens and {self.length} prompt vectors are more than the model's {most} positions; "
                f"lower model.max_source"
            )

    def _shifted(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The inputs of a later token, whose cache begins with the prompts."""
        # `generate` counts the tokens that it knows of, so its mask and positions lack the prompts
        mask = kwargs.get("attention_mask")
        if mask is not None:
            kwargs["attention_mask"] = torch.cat([mask.new_ones(len(mask), self.length), mask], dim=1)
        position_ids = kwargs.get("position_ids")
        if position_ids is not None:
            kwargs["position_ids"] = position_ids + self.length
        return kwargs

    def _after_reader(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        # `added`, not `length`: a pass that reads on from a cache has no prompts among its states
        if not self.model_reader.bare and self.added:
            states = output.last_hidden_state
            end = self.start + self.added
            output.last_hidden_state = torch.cat([states[:, : self.start], states[:, end:]], dim=1)
        return output

    def _before_decoder(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        # `length`, not `added`: in generation the encoder runs once, and the decoder attends to it at every token
        mask = kwargs.get("encoder_attention_mask")
        if mask is not None and self.length:
            ones = mask.new_ones(len(mask), self.length)
            kwargs = {**kwargs, "encoder_attention_mask": torch.cat([ones, mask], dim=1)}
        return args, kwargs


def random_token_embeddings(embeddings: nn.Embedding, count: int, rng: torch.Generator) -> Tensor:
    """[count, d]: the embeddings of random tokens, from which a prompt starts (arXiv 2104.08691)."""
    # drawn on the CPU, so that the same tokens are drawn on every device
    chosen = torch.randint(embeddings.num_embeddings, (count,), generator=rng)
    return whole(embeddings.weight)[chosen.to(embeddings.weight.device)].clone()


def example_loss_weights(batch: Batch) -> Tensor:
    """[B]: each example's part of the batch's loss weight, as the loss counts it: by answer tokens, or by examples."""
    labels: Tensor = batch.labels
    if labels.ndim > 1:
        num_terms = (labels != IGNORED).sum(1)
    else:
        num_terms = torch.ones_like(labels)
    return batch.loss_weight * num_terms / num_terms.sum()
