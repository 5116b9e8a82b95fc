"""What can be known of a model on the meta device, which has shapes and no values."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from methods.base import Context
from methods.batch import Batch
from methods.shared.token_streams import LayerStreams, by_token

Hook = Callable[[nn.Module, object, Tensor], None]


@torch.no_grad()
def check_outputs(context: Context, model: nn.Module, layers: Mapping[str, nn.Module], batch: Batch) -> None:
    """Raises ValueError unless each layer runs, and gives one vector for each token of its stream.

    A layer that does not would be measured wrongly: DeBERTa's projections read its relative positions too, and fast
    kernels of Mamba take a layer's weight without running it.
    """
    streams = LayerStreams(model)
    masks = {name: stream.mask for name, stream in batch.token_streams()}
    if batch.options is not None:
        masks["options"] = batch.options.mask
    never_run = dict(layers)

    def hook(name: str) -> Hook:
        def check(module: nn.Module, inputs: object, output: Tensor) -> None:
            by_token(name, output, masks[streams.of(name)])
            never_run.pop(name, None)

        return check

    handles = []
    for name, layer in layers.items():
        handles.append(layer.register_forward_hook(hook(name)))
    # torch logs what it cannot compute without values before it raises
    torch_log = logging.getLogger("torch._subclasses.fake_tensor")
    level = torch_log.level
    torch_log.setLevel(logging.CRITICAL)
    try:
        # tensors that say that they have no values: of plain ones transformers asks whether a mask holds any padding
        with FakeTensorMode(allow_non_fake_inputs=True):
            context.forward(model, batch.to(torch.device("meta")))
    except RuntimeError:
        # a mixture of experts chooses by values: what runs after that is seen in the first step
        return
    finally:
        torch_log.setLevel(level)
        for handle in handles:
            handle.remove()
    if never_run:
        raise ValueError(f"layer {next(iter(never_run))!r} does not run as a layer, so its activations are unknown")
