"""The logits that a model's loss looks at.

Shapes: N answer tokens (or examples), K columns of the logits (vocabulary or labels).
"""

from __future__ import annotations

from torch import Tensor

from methods.batch import IGNORED, Batch


def answer_logits(batch: Batch, logits: Tensor) -> Tensor:
    """[N, K]: the logits that the loss compares with a label.

    A classifier's are [B, K], one for each example. An encoder-decoder's labels lie beside its logits; a decoder's lie beside
    its input, and the logits at each token are those of the next one.
    """
    if logits.ndim == 2:
        return logits
    labels = batch.labels
    if batch.answer_in_source:
        logits = logits[:, : labels.shape[1] - 1]
        labels = labels[:, 1:]
    return logits[labels != IGNORED]
