"""Low-rank adapters, one for every task, of which each input gets its own mixture; what is common to the ways to choose.

Shapes: B examples, S tokens, E adapters so far, d the width of the model's states.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.adapters.adapter_per_task import AdapterPerTask, adapters
from methods.adapters.lora import LoraSettings
from methods.base import Context, at_least_float32, trainable
from methods.batch import Batch
from methods.shared.expert_layer import ExpertLayer
from methods.shared.linears import replace_targets
from methods.shared.reader import ModelReader, mean_over_tokens
from methods.shared.tensors import freeze_all_but


class Routing:
    """How much each adapter acts on each example of the running pass; all layers of a model share one."""

    of_a_step = ("gates_BE", "acting")

    def __init__(self) -> None:
        self.gates_BE: Tensor | None = None
        self.acting: list[int] = []
        self.is_off = False

    def set(self, gates_BE: Tensor, newest_acts: bool) -> None:
        """Let these gates hold until the next text is read. `newest_acts`: compute the newest adapter even at gate zero."""
        self.gates_BE = gates_BE
        self.acting = (gates_BE != 0).any(0).nonzero().flatten().tolist()
        newest = gates_BE.shape[1] - 1
        # several workers wait for a gradient of every parameter that trains
        if newest_acts and newest >= 0 and newest not in self.acting:
            self.acting.append(newest)

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """Until the end of the context the model is the one without adapters."""
        before = self.is_off
        self.is_off = True
        try:
            yield
        finally:
            self.is_off = before


class RoutedLayer(ExpertLayer):
    """y = W x + (alpha / r) sum over e of g_e B_e A_e x, with gates g of the example that x belongs to."""

    def __init__(self, base_layer: nn.Linear, settings: LoraSettings, kind: str, routing: Routing) -> None:
        super().__init__(base_layer, settings.r, settings.alpha, settings.dropout, kind)
        self.routing = routing

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.base_layer(x)
        gates_BE = self.routing.gates_BE
        if self.routing.is_off or gates_BE is None or not self.lora_A:
            return result
        x = self.dropout(x)
        # one gate an example, whatever tokens and dimensions follow
        shape = [-1] + [1] * (x.ndim - 1)
        for expert in self.routing.acting:
            gate_B = gates_BE[:, expert].view(shape)
            # a decomposition under autocast may leave the gate in float32 and the base layer's result in bfloat16
            result = result + (gate_B * self.expert_output(str(expert), x)).to(result.dtype)
        return result


class RoutedAdapters(AdapterPerTask):
    """y = W x + (alpha / r) sum over tasks e of g_e(text) B_e A_e x: a tuning method whose gates g depend on the whole text.

    Only the newest adapter and a head train. The gates are computed once for each text that the model reads, before it
    reads it, and hold for its answer too; a subclass says how, by `gates`. Its own parameters belong into `router`.
    """

    of_a_step = ("text_mask",)

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings, context)
        self.routing = Routing()
        # the text's tokens where the source holds an answer too, which no gate may depend on
        self.text_mask: Tensor | None = None

    # made in `prepare`
    reader: ModelReader
    layers: list[RoutedLayer]
    router: nn.Module

    def make_router(self) -> nn.Module:
        """The module of the router's own parameters, before the first task. By default it has none."""
        return nn.Module()

    def gates(self, embeds: Tensor, mask: Tensor, training: bool) -> Tensor:
        """[B, E]: how much each adapter acts on texts of these embeddings [B, S, d] and mask [B, S]."""
        raise NotImplementedError

    @property
    def num_adapters(self) -> int:
        """E."""
        return len(self.layers[0].lora_A)

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        freeze_all_but(model, head)
        self.reader = ModelReader(model)
        kind = type(self).__name__.lower()
        made = replace_targets(
            model, self.settings.targets, lambda linear: RoutedLayer(linear, self.settings, kind, self.routing)
        )
        self.layers = list(made.values())
        self.router = self.make_router()
        # inside the model, so that its devices, its optimizer and its checkpoints are the router's too
        model.add_module("adapter_router", self.router)
        self.reader.module.register_forward_pre_hook(self._before_reader, with_kwargs=True)
        return model

    def _before_reader(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self.routing.is_off:
            return None
        kwargs = self.reader.named(args, kwargs)
        # generation reads its own answer now, under the gates of the text
        if self.reader.is_continued(kwargs):
            return None
        embeds, mask = self.reader.inputs(kwargs)
        if self.reader.module.training and self.text_mask is not None:
            mask = self.text_mask
        self.routing.set(self.gates(embeds, mask, self.reader.module.training), self.reader.module.training)
        return (), kwargs

    def on_batch(self, batch: Batch) -> Batch:
        """Note which tokens an answer follows: the hook on the model cannot tell it from the text."""
        self.text_mask = None
        if batch.answer_in_source:
            self.text_mask = batch.text_mask()
        return batch

    def mean_states(self, embeds: Tensor, mask: Tensor) -> Tensor:
        """[B, d]: the mean over a text's tokens of the frozen model's last states, at length 1; as `Context.embed`."""
        # attention masks the answer too where there is one: a decoder's states of the text do not depend on it
        with self.routing.off():
            states = self.reader.read_bare(embeds, mask)
        return F.normalize(mean_over_tokens(at_least_float32(states), mask), dim=1)

    def embed(self, batch: Batch) -> Tensor:
        """[B, d]: the same of a batch, without a gradient."""
        with self.routing.off(), torch.no_grad():
            return self.context.embed(batch)

    def grow(self, model: nn.Module, tasks: int) -> None:
        names = {module: name for name, module in model.named_modules()}
        for layer in self.layers:
            layer.set_experts(tasks, names[layer], self.context.seed)
            for expert, down in layer.lora_A.items():
                is_newest = int(expert) == tasks - 1
                down.requires_grad_(is_newest)
                layer.lora_B[expert].requires_grad_(is_newest)
        self.grow_router(tasks)
        self.routing.gates_BE = None

    def grow_router(self, tasks: int) -> None:
        """Give the router the structure that it has once `tasks` tasks were begun. By default it has no parameters."""

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        # frozen parts of the router and earlier adapters are no part of `trainable`
        weights: dict[str, Tensor] = dict(adapters(model))
        for name, parameter in self.router.named_parameters():
            weights[f"adapter_router.{name}"] = parameter
        return {**weights, **trainable(model)}
