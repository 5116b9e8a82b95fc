"""Which of a batch's token streams a layer reads, for methods that look at activations."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from torch import Tensor, nn

from methods.batch import StreamName

# A decoder's keys and values of the encoder's states, by their names in T5 and in BART and its kin
READS_ENCODER_STATES = re.compile(r"(EncDecAttention\.[kv]|encoder_attn\.[kv]_proj)(\.|$)")


class Reading:
    """The token stream that a model reads now. A model that runs one encoder over several streams has one as `reading`."""

    def __init__(self) -> None:
        self.stream: StreamName = "source"

    @contextlib.contextmanager
    def switched_to(self, stream: StreamName) -> Iterator[None]:
        """Until the end of the context the model reads another stream."""
        before = self.stream
        self.stream = stream
        try:
            yield
        finally:
            self.stream = before


class LayerStreams:
    """Tells the token stream that each layer of a model reads; `model` as hooks see it, not wrapped for several workers.

    Asked for while the model runs, since one encoder may read several streams in turn.
    """

    def __init__(self, model: nn.Module) -> None:
        # only a model that reads several streams with one encoder has it
        self.reading: Reading | None = getattr(model, "reading", None)
        self.has_decoder_stream = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
        self.encoder_prefix = ""
        if self.has_decoder_stream:
            # found by identity: families name their encoders differently
            encoder = model.get_encoder()  # type: ignore[operator]
            for name, module in model.named_modules():
                if module is encoder:
                    self.encoder_prefix = f"{name}."

    def of(self, layer_name: str) -> StreamName:
        """The stream that a layer of that name reads in the running pass."""
        if self.reading is not None:
            return self.reading.stream
        if not self.has_decoder_stream or layer_name.startswith(self.encoder_prefix):
            return "source"
        if READS_ENCODER_STATES.search(layer_name):
            return "source"
        return "target"


def by_token(layer_name: str, activation: Tensor, mask: Tensor) -> Tensor:
    """An activation as [B, S, d]; raises ValueError where it is not one vector for each token of its stream."""
    # OPT's feed-forward layers read the tokens of all texts as one list
    if activation.ndim == 2 and len(activation) == mask.numel():
        return activation.unflatten(0, mask.shape)
    if activation.shape[:-1] != mask.shape:
        raise ValueError(
            f"layer {layer_name!r}: activations of shape {tuple(activation.shape)} do not fit the mask "
            f"{tuple(mask.shape)} of the tokens that it reads"
        )
    return activation
