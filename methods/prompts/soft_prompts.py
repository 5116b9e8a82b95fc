"""Soft prompts: trained vectors that stand among a model's input embeddings, for training, scoring and generation alike.

Shapes: B examples, S tokens, P vectors, d the width of the embeddings.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from methods.batch import Batch

# [B, P, d] for the token embeddings [B, S, d] and their mask [B, S]; P may be 0
Prompts = Callable[[Tensor, Tensor], Tensor]


class PromptedModel:
    """Puts prompts before the tokens of everything that the model reads, by hooks on its encoder or decoder.

    Encoder-decoders attend to the prompts in the encoder and from the decoder. In a decoder they come before the text,
    padding included, and in an encoder behind the first token, which classifiers look at; both give back the states of the
    tokens alone, so that nothing that follows needs to know.
    """

    def __init__(self, model: nn.Module, prompts: Prompts) -> None:
        from transformers import PreTrainedModel

        self.prompts = prompts
        self.length = 0  # vectors before what is being read, or was read last
        self.added = 0  # of these, how many the running pass itself reads; the others are in its cache
        self.bare = self.causal = False
        inner = next(m for m in model.modules() if isinstance(m, PreTrainedModel))
        if inner.config.is_encoder_decoder:
            self.reader: nn.Module = inner.get_encoder()
            inner.get_decoder().register_forward_pre_hook(self._before_decoder, with_kwargs=True)
            self.start, strip = 0, False
        else:
            self.reader = inner.base_model
            self.causal = inner.can_generate()
            self.start, strip = (0 if self.causal else 1), True
        self.reader.register_forward_pre_hook(self._before_reader, with_kwargs=True)
        if strip:
            self.reader.register_forward_hook(self._after_reader)

    @property
    def embeddings(self) -> nn.Embedding:
        """The token embeddings."""
        found = self.reader.get_input_embeddings()  # type: ignore[operator]
        assert isinstance(found, nn.Embedding)
        return found

    @torch.no_grad()
    def read_bare(self, embeds: Tensor, mask: Tensor) -> Tensor:
        """The reader's last states [B, S, d] without prompts and without dropout."""
        # padding may come first, and has no place of its own
        places = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)} if self.causal else {}
        self.bare, training = True, self.reader.training
        self.reader.eval()
        try:
            states: Tensor = self.reader(inputs_embeds=embeds, attention_mask=mask, **places).last_hidden_state
        finally:
            self.bare = False
            self.reader.train(training)
        return states

    def _before_reader(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self.bare:
            return None
        if args:  # the names of what came without
            names = list(inspect.signature(module.forward).parameters)
            kwargs = {**dict(zip(names, args, strict=False)), **kwargs}
        cache = kwargs.get("past_key_values")
        if cache is not None and cache.get_seq_length() > 0:
            self.added = 0
            return (), self._shifted(kwargs)
        return (), self._prompted(kwargs)

    def _prompted(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The inputs with prompts among them."""
        embeds, mask = kwargs.get("inputs_embeds"), kwargs.get("attention_mask")
        if embeds is None:
            embeds = self.embeddings(kwargs["input_ids"])
        if mask is None:
            mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
        vectors = self.prompts(embeds, mask).to(embeds.dtype)
        self.length = self.added = vectors.shape[1]
        if not self.length:
            return kwargs
        self._check_length(embeds.shape[1])
        ones = mask.new_ones(vectors.shape[:2])
        cut = self.start
        kwargs = {
            **kwargs,
            "input_ids": None,
            "inputs_embeds": torch.cat([embeds[:, :cut], vectors, embeds[:, cut:]], dim=1),
            "attention_mask": torch.cat([mask[:, :cut], ones, mask[:, cut:]], dim=1),
        }
        if kwargs.get("position_ids") is not None:
            places = torch.arange(self.length, device=embeds.device).expand(len(embeds), -1)
            kwargs["position_ids"] = torch.cat([places, kwargs["position_ids"] + self.length], dim=1)
        return kwargs

    def _check_length(self, tokens: int) -> None:
        """Raises ValueError where a model with learned positions has none for so long an input."""
        table = getattr(getattr(self.reader, "embeddings", None), "position_embeddings", None)
        if isinstance(table, nn.Embedding):
            most = table.num_embeddings - (table.padding_idx + 1 if table.padding_idx is not None else 0)
            if tokens + self.length > most:
                raise ValueError(
                    f"{tokens} tokens and {self.length} prompt vectors are more than the model's {most} positions; "
                    f"lower model.max_source"
                )

    def _shifted(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The inputs of a later token, whose cache begins with the prompts."""
        mask, places = kwargs.get("attention_mask"), kwargs.get("position_ids")
        if mask is not None:
            kwargs["attention_mask"] = torch.cat([mask.new_ones(len(mask), self.length), mask], dim=1)
        if places is not None:
            kwargs["position_ids"] = places + self.length
        return kwargs

    def _after_reader(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not self.bare and self.added:
            states, end = output.last_hidden_state, self.start + self.added
            output.last_hidden_state = torch.cat([states[:, : self.start], states[:, end:]], dim=1)
        return output

    def _before_decoder(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        mask = kwargs.get("encoder_attention_mask")
        if mask is not None and self.length:
            ones = mask.new_ones(len(mask), self.length)
            kwargs = {**kwargs, "encoder_attention_mask": torch.cat([ones, mask], dim=1)}
        return args, kwargs


def vocabulary_rows(embeddings: nn.Embedding, count: int, rng: torch.Generator) -> Tensor:
    """The embeddings of `count` random tokens: where a prompt starts (arXiv 2104.08691)."""
    chosen = torch.randint(embeddings.num_embeddings, (count,), generator=rng)
    return embeddings.weight.detach()[chosen.to(embeddings.weight.device)].clone()


def example_shares(batch: Batch) -> Tensor:
    """[B]: each example's share of the global batch, as the loss counts it: by answer tokens, or by examples."""
    labels: Tensor = batch.labels
    units = (labels != -100).sum(1) if labels.ndim > 1 else torch.ones_like(labels)
    return batch.loss_weight * units / units.sum()
