"""How likely each block of a corpus is to a model.

Shapes: B blocks of a batch, N predicted tokens of all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from methods import Batch, at_least_float32
from orchestrator.evaluation.likelihoods import Likelihood
from orchestrator.evaluation.texts import TOKENS_ON_CPU
from orchestrator.models.family import Family
from orchestrator.models.packing.blocks import Blocks
from streams import Corpus, Split


def block_likelihoods(
    family: Family, corpus: Corpus, split: Split, batch_size: int, device: torch.device
) -> Iterator[Likelihood]:
    """What the model makes of each block, in order: of each token, or of those that a fixed mask chooses for all states.

    In batches of at most `batch_size`, and of few tokens: each of them has as many logits as there are tokens to choose from.
    """
    blocks = family.features_of(corpus, split)
    assert isinstance(blocks, Blocks)
    size = max(1, min(batch_size, TOKENS_ON_CPU // family.block_length))
    for first in range(0, len(blocks), size):
        batch = family.collate(blocks[first : first + size]).to(device)
        losses = block_losses(family, batch).tolist()
        num_bytes = blocks.tokens.block_bytes[first : first + size].tolist()
        for loss, num_tokens, of_block in zip(losses, batch.answers_by_example(), num_bytes, strict=True):
            yield Likelihood(loss, num_tokens, of_block)


def block_losses(family: Family, batch: Batch) -> Tensor:
    """[B]: -log p of each block's predicted tokens together, in float32 at least."""
    assert batch.answers is not None
    # the family sums over the batch; its logits are those of the answers, in their order
    _, logits_NV = family.forward(family.module, batch)
    losses_N = F.cross_entropy(at_least_float32(logits_NV), batch.answer_tokens(), reduction="none")
    losses_B = torch.zeros(len(batch.labels), dtype=losses_N.dtype, device=losses_N.device)
    return losses_B.index_add(0, batch.answers // batch.labels.shape[1], losses_N)
