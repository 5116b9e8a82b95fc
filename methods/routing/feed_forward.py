"""The feed-forward blocks of a transformer, and a layer that holds several copies of one, mixed for each example.

Shapes: x [B, ..., d] over B examples, gates [B, E] over E experts.
"""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
from torch import Tensor, nn

from methods.routing.routed import Routing
from methods.shared.linears import replace_module

# The linear layers of a block that is a module of its own: T5's plain and gated one, and Llama's
_LINEARS = (
    {"wi", "wo"},
    {"wi_0", "wi_1", "wo"},
    {"gate_proj", "up_proj", "down_proj"},
)


class FeedForwardExperts(nn.Module):
    """y = sum over experts e of g_e FFN_e(x), with the gates g of the example that x belongs to; without experts, FFN(x).

    `pretrained` is the block whose place the layer takes, and stays as it is.
    """

    def __init__(self, pretrained: nn.Module, routing: Routing) -> None:
        super().__init__()
        self.pretrained = pretrained
        self.experts = nn.ModuleDict()
        self.routing = routing

    def set_experts(self, count: int) -> None:
        """Have as many experts, of which the newest alone trains; a new one is a copy of the pretrained block."""
        present = len(self.experts)
        # a state of fewer tasks may be loaded into a model that has trained more
        for expert in range(count, present):
            del self.experts[str(expert)]
        for expert in range(present, count):
            self.experts[str(expert)] = copy.deepcopy(self.pretrained)
        for name, block in self.experts.items():
            block.requires_grad_(int(name) == count - 1)

    @torch.no_grad()
    def start_newest_from(self, expert: int) -> None:
        """Let the newest expert begin as a copy of another one."""
        newest = self.experts[str(len(self.experts) - 1)]
        newest.load_state_dict(self.experts[str(expert)].state_dict())

    def forward(self, x: Tensor) -> Tensor:
        gates_BE = self.routing.gates_BE
        if gates_BE is None or not self.experts:
            pretrained: Tensor = self.pretrained(x)
            return pretrained
        first, *others = self.routing.acting
        result = self._weighted(first, gates_BE[:, first], x)
        for expert in others:
            result = result + self._weighted(expert, gates_BE[:, expert], x)
        return result

    def _weighted(self, expert: int, gate_B: Tensor, x: Tensor) -> Tensor:
        output: Tensor = self.experts[str(expert)](x)
        # one gate an example, whatever tokens and dimensions follow
        shape = [-1] + [1] * (x.ndim - 1)
        # under autocast the gate is float32 and the block's output bfloat16
        return (gate_B.view(shape) * output).to(output.dtype)


def replace_feed_forwards(model: nn.Module, routing: Routing) -> dict[str, FeedForwardExperts]:
    """Let a layer that can hold experts take the place of each feed-forward block; the new layers by name.

    Raises ValueError where one of the model's blocks has none that is known.
    """
    found = _feed_forwards(model)
    config = model.config
    # of an encoder-decoder, `num_hidden_layers` are the encoder's
    num_blocks = int(getattr(config, "num_hidden_layers", 0)) + int(getattr(config, "num_decoder_layers", None) or 0)
    if not found or len(found) != num_blocks:
        kind = str(getattr(config, "model_type", "unknown"))
        raise ValueError(
            f"the feed-forward blocks of T5, BERT, RoBERTa, Llama and their like are known; of the {num_blocks} blocks of "
            f"this {kind!r} model {len(found)} have one"
        )
    made = {}
    for name, block in found.items():
        made[name] = FeedForwardExperts(block, routing)
        replace_module(model, name, made[name])
        parent = model.get_submodule(name.rpartition(".")[0])
        if isinstance(block, nn.Sequential):
            # the experts give what this layer gave
            replace_module(parent, "output.dense", nn.Identity())
    return made


def _feed_forwards(model: nn.Module) -> dict[str, nn.Module]:
    """The feed-forward blocks by the names of the modules that experts can take the place of."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        # the expert of a mixture, which lies deeper than in a numbered block, is no block's whole feed-forward
        if name.rpartition(".")[0].split(".")[-1].isdigit() and _linear_names(module) in _LINEARS:
            found[name] = module
        if name.split(".")[-1].isdigit() and _is_encoder_block(module):
            # BERT's is in two modules, of which the second one also has the residual connection and its norm
            intermediate = module.get_submodule("intermediate")
            dense = module.get_submodule("output.dense")
            found[f"{name}.intermediate"] = nn.Sequential(OrderedDict(intermediate=intermediate, dense=dense))
    return found


def _linear_names(module: nn.Module) -> set[str]:
    names = set()
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            names.add(name)
    return names


def _is_encoder_block(module: nn.Module) -> bool:
    """Whether a module has BERT's `intermediate` and `output`, each with its one linear layer."""
    for name in ("intermediate", "output"):
        part = getattr(module, name, None)
        if not isinstance(part, nn.Module) or _linear_names(part) != {"dense"}:
            return False
    return True
