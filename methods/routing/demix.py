"""DEMix: a copy of all feed-forward blocks for every task, mixed by how probable the text is in each task (arXiv 2108.05036).

Shapes: B examples, S tokens, E experts so far, T tasks whose texts were counted, V token ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.adapters.moelora import gate
from methods.base import Context, Settings, State, TuningMethod, trainable
from methods.batch import Batch
from methods.routing.feed_forward import FeedForwardExperts, replace_feed_forwards
from methods.routing.routed import Routing
from methods.seam.card import Card
from methods.seam.cost import Cost
from methods.shared.reader import ModelReader
from methods.shared.tensors import freeze_all_but


class DemixSettings(Settings):
    """Default: all experts act, as in the paper."""

    smoothing: float = Field(
        0.1, gt=0, allow_inf_nan=False, description="what is added to each token's count in a task's texts"
    )
    top_k: int | None = Field(None, ge=1, description="experts that act on a text; none: all")


def log_probabilities(counts_TV: Tensor, smoothing: float) -> Tensor:
    """[T, V]: log of (n_tv + s) / (sum over v of n_tv + s V), in float64."""
    smoothed_TV = counts_TV.double() + smoothing
    return (smoothed_TV / smoothed_TV.sum(1, keepdim=True)).log()


def log_likelihoods(ids_BS: Tensor, mask_BS: Tensor, log_probabilities_TV: Tensor) -> Tensor:
    """[B, T]: sum over a text's tokens of log p(token | task)."""
    of_tokens_TBS = log_probabilities_TV[:, ids_BS]
    return (of_tokens_TBS * mask_BS).sum(2).T


class Demix(Cost, TuningMethod):
    """In every transformer block y = sum over tasks e of p(e | text) FFN_e(x), where FFN_e is trained on task e alone and all
    else but a task head is frozen. FFN_e starts from the expert with the highest mean posterior over the new task's texts, the
    first one from the pretrained block. By Bayes' rule p(e | text) is proportional to p(text | e), with the uniform prior.

    No task is named when answering. Departures: the paper's p(text | e) is that of the language model with expert e, but here
    only answers are trained; ours is the product over the text's tokens of (n_e(token) + s) / (N_e + s V), with n_e the counts
    in task e's training texts. It is not normalised by length: Bayes' rule asks for the probability of the text, and per token
    tasks differ so little that the best of many experts would have a small part of the weight. (The released code looks at
    the last token alone; we follow the paper's formula.) The paper mixes the experts' output distributions, we their outputs
    in each layer, which is the same wherever one expert has all the weight. Its updating prior would let an answer depend on
    the texts before it, and its cached one is taken from held-out text of the task that is tested: both are left out. A
    sentence encoder's label texts are weighed as texts of their own.
    """

    Settings = DemixSettings
    card = Card(
        summary="a copy of the feed-forward blocks for every task, mixed by the text's probability in each",
        paper="2108.05036",
        needs=("boundaries",),
        memory="one copy of the feed-forward blocks and the count of each token a task",
        space={"smoothing": (0.03, 0.1, 0.3), "top_k": (1, 2, 4)},
        per_task_weights="each task trains weights of its own, so there are no old ones to hold",
        not_sharded="a new expert is a copy of a whole block",
        no_corpora="it looks at a text apart from its answer, and a corpus has no answers",
        not_quantised="a new expert starts as a copy of a frozen block, and trains",
    )

    def __init__(self, settings: DemixSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.routing = Routing()
        # of each task how often each token id is in its training texts, [V]
        self.counts: list[Tensor] = []
        self.log_probabilities_TV: Tensor | None = None

    # made in `prepare`
    reader: ModelReader
    layers: dict[str, FeedForwardExperts]

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        freeze_all_but(model, head)
        self.reader = ModelReader(model)
        self.layers = replace_feed_forwards(model, self.routing)
        self.reader.module.register_forward_pre_hook(self._before_reader, with_kwargs=True)
        return model

    def grow(self, model: nn.Module, tasks: int) -> None:
        for layer in self.layers.values():
            layer.set_experts(tasks)
        self.routing.gates_BE = None

    @property
    def num_experts(self) -> int:
        """E."""
        return len(next(iter(self.layers.values())).experts)

    def _before_reader(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = self.reader.named(args, kwargs)
        # generation reads its own answer now, under the gates of the text
        if not self.num_experts or self.reader.is_continued(named):
            return
        ids_BS = named["input_ids"]
        mask_BS = named.get("attention_mask")
        if mask_BS is None:
            mask_BS = torch.ones_like(ids_BS)
        self.routing.set(self.gates(ids_BS, mask_BS, module.training), module.training)

    def gates(self, ids_BS: Tensor, mask_BS: Tensor, training: bool) -> Tensor:
        """[B, E]: p(e | text); while a task is trained its own expert acts alone."""
        like = next(next(iter(self.layers.values())).parameters())
        gates_BE = torch.zeros(len(ids_BS), self.num_experts, dtype=like.dtype, device=ids_BS.device)
        if training or not self.counts:
            gates_BE[:, -1] = 1.0
            return gates_BE
        posterior_BT = gate(self.scores(ids_BS, mask_BS), self.settings.top_k)
        # an expert whose task has only just begun may have no counts yet
        gates_BE[:, : posterior_BT.shape[1]] = posterior_BT.to(gates_BE.dtype)
        return gates_BE

    def scores(self, ids_BS: Tensor, mask_BS: Tensor) -> Tensor:
        """[B, T]: log p(text | e), in float64, which autocast leaves alone."""
        if self.log_probabilities_TV is None:
            counts_TV = torch.stack(self.counts).to(ids_BS.device)
            self.log_probabilities_TV = log_probabilities(counts_TV, self.settings.smoothing)
        return log_likelihoods(ids_BS, mask_BS, self.log_probabilities_TV)

    @torch.no_grad()
    def before_task(self, model: nn.Module, task_id: int, batches: Iterable[Batch]) -> None:
        """Count the new task's tokens, and start its expert from the one that is most probable for its texts."""
        size = self.reader.embeddings.num_embeddings
        device = next(model.parameters()).device
        counts_V = torch.zeros(size, dtype=torch.float64, device=device)
        posterior_T = torch.zeros(task_id, dtype=torch.float64, device=device)
        for batch in batches:
            # a decoder's source holds the answer too
            mask_BS = batch.text_mask()
            counts_V += torch.bincount(batch.source.ids[mask_BS.bool()], minlength=size)
            if task_id:
                posterior_T += self.scores(batch.source.ids, mask_BS).softmax(1).sum(0)
        # rounded: the mean over seven workers, times seven, need not be whole
        counts_V = self.context.sum_over_workers(counts_V).round()
        if task_id:
            # the sum over texts is highest where the mean is
            total_T = self.context.sum_over_workers(posterior_T)
            nearest = int(self.context.from_first_worker(total_T.argmax()))
            for layer in self.layers.values():
                layer.start_newest_from(nearest)
        # on the CPU, as a loaded state's are
        self.counts.append(counts_V.long().cpu())
        self.log_probabilities_TV = None

    def unread(self, model: nn.Module) -> dict[str, Tensor]:
        """The pretrained blocks and the experts of earlier tasks."""
        found: dict[str, Tensor] = {}
        for name, layer in self.layers.items():
            for own_name, parameter in layer.named_parameters():
                if not parameter.requires_grad:
                    found[f"{name}.{own_name}"] = parameter
        return found

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        # the earlier experts are frozen, so `trainable` alone would leave them out
        weights: dict[str, Tensor] = {}
        for name, layer in self.layers.items():
            for own_name, parameter in layer.experts.named_parameters():
                weights[f"{name}.experts.{own_name}"] = parameter
        return {**weights, **trainable(model)}

    def state_dict(self) -> State:
        if not self.counts:
            return {}
        return {"counts": torch.stack(self.counts)}

    def load_state_dict(self, state: State) -> None:
        self.counts = list(state["counts"])
        self.log_probabilities_TV = None
