"""L2P, learning to prompt: each input picks its prompts from one pool by keys (arXiv 2112.08654).

Shapes: B examples, S tokens, M prompts in the pool, N picked, L vectors each, d the width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.base import Context, Settings, TuningMethod, at_least_float32, generator
from methods.batch import Batch
from methods.prompts.soft_prompts import PromptedModel, example_loss_weights, random_token_embeddings
from methods.seam.card import PROMPT_RATES, Card
from methods.seam.cost import Cost, ExtraPasses
from methods.shared.reader import mean_over_tokens
from methods.shared.tensors import freeze_all_but, outside_autocast


class L2PSettings(Settings):
    """Defaults: the paper's for CIFAR-100."""

    pool: int = Field(10, ge=1, description="prompts in the pool")
    picked: int = Field(5, ge=1, description="prompts that an input gets (the whole pool, if it has fewer)")
    tokens: int = Field(5, ge=1, description="vectors of a prompt")
    pull: float = Field(0.5, ge=0, description="weight of the distance between an input and its prompts' keys")
    query: Literal["states", "embeddings"] = Field(
        "states",
        description="what is matched with keys: the mean of the frozen model's last states, or of its embeddings",
    )


class _Pool(nn.Module):
    """The prompts [M, L, d] and their keys [M, d]."""

    def __init__(self, prompt: Tensor, key: Tensor) -> None:
        super().__init__()
        self.prompt = nn.Parameter(prompt)
        self.key = nn.Parameter(key)


def nearest_keys(query_Bd: Tensor, key_Md: Tensor, picked: int) -> tuple[Tensor, Tensor]:
    """(cosine similarity, index) [B, N] of each query's most similar keys, the nearest first."""
    # cosines of one text with many keys lie close together; bfloat16 would make ties of them
    unit_query_Bd = F.normalize(at_least_float32(query_Bd), dim=1)
    unit_key_Md = F.normalize(at_least_float32(key_Md), dim=1)
    with outside_autocast(unit_key_Md):
        similarity_BM = unit_query_Bd @ unit_key_Md.T
    nearest = similarity_BM.topk(min(picked, len(key_Md)), dim=1)
    return nearest.values, nearest.indices


class L2P(Cost, TuningMethod):
    """Input [p_1, ..., p_N, x] with the prompts whose keys are most similar (cosine) to the query q(x); prompts, keys and a
    task head train. loss += pull · mean over examples of the sum over its keys of 1 - cos(q(x), k).

    No task is named, in training or after. The paper's query, the frozen model's class token, becomes the mean over the
    tokens of the text without its answer; each example picks for itself (released code: a batch may vote). The optional
    penalty on frequent prompts, which needs task boundaries, is left out. So is the released code's mask on the loss, which takes
    the labels of other tasks out of the softmax while a task is trained: here all columns train. Prompts start from random
    tokens' embeddings. Adam's epsilon, 1e-8, is the released code's; its decay is 0.
    """

    Settings = L2PSettings
    card = Card(
        summary="a pool of soft prompts, from which each input picks by keys",
        paper="2112.08654",
        memory="the pool and its keys",
        space={"pool": (10, 20, 30), "picked": (1, 3, 5), "pull": (0.1, 0.5, 1.0)},
        training_space={"lr": PROMPT_RATES},
        default_lr=0.03,
        no_output_units="it trains no linear layer, only soft prompts",
        no_own_weights="it trains soft prompts alone",
        no_corpora="it looks at a text apart from its answer, and a corpus has no answers",
    )

    def __init__(self, settings: L2PSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.matches: list[Tensor] = []
        self.source: Tensor | None = None

    def prepare(self, model: nn.Module, head: Sequence[nn.Parameter]) -> nn.Module:
        s: L2PSettings = self.settings
        freeze_all_but(model, head)
        self.prompted = PromptedModel(model, self.vectors)
        embeddings = self.prompted.embeddings
        rng = generator(self.context.seed, "l2p")
        width = embeddings.embedding_dim
        prompt = random_token_embeddings(embeddings, s.pool * s.tokens, rng).view(s.pool, s.tokens, width)
        # after the prompts, from the same generator: a pool of another size has other keys
        key = 2 * torch.rand((s.pool, width), generator=rng) - 1
        self.pool = _Pool(prompt, key.to(prompt))
        model.add_module("soft_prompts", self.pool)
        return model

    def without_decay(self) -> Sequence[nn.Parameter]:
        return list(self.pool.parameters())

    def extra_passes(self, task_id: int, size: int) -> ExtraPasses:
        """The query that is compared with the keys. That of an encoder-decoder is the encoder's, and counts as a whole pass."""
        if self.settings.query == "states":
            return ExtraPasses(forward=1.0)
        return ExtraPasses()

    def added_tokens(self, task_id: int) -> int:
        return min(self.settings.picked, self.settings.pool) * self.settings.tokens

    def on_batch(self, batch: Batch) -> Batch:
        """Note which tokens an answer follows: where the text contains it, the query must not."""
        self.source = None
        # the hook on the model sees the tokens and their padding, and cannot tell the answer from the text
        if batch.answer_in_source:
            self.source = batch.text_mask()
        self.matches = []
        return batch

    def vectors(self, embeds: Tensor, mask: Tensor) -> Tensor:
        """[B, N L, d]: the prompts that each text picks, for its embeddings [B, S, d] and their mask [B, S]."""
        training = self.prompted.reader.training
        seen = mask
        # an answer is among the tokens in training alone
        if training and self.source is not None:
            seen = self.source
        if self.settings.query == "states":
            bare = self.prompted.read_bare(embeds, mask)
        else:
            bare = embeds.detach()
        query_Bd = mean_over_tokens(at_least_float32(bare), seen)
        similarity, index = nearest_keys(query_Bd, self.pool.key, self.settings.picked)
        # scoring and generation have no loss to pull keys by, and no `on_batch` to empty the list
        if training:
            self.matches.append(similarity)
        return self.pool.prompt[index].flatten(1, 2)

    def after_forward(self, model: nn.Module, batch: Batch, logits: Tensor, loss: Tensor) -> Tensor:
        # of what was read the texts come first; a sentence encoder reads the labels' texts after them
        distance_B = (1 - self.matches[0]).sum(1)
        self.source = None
        self.matches = []
        return loss + self.settings.pull * (example_loss_weights(batch) * distance_B).sum()
