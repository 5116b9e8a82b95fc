"""Which weights have output units that can be masked, and choosing among them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
from torch import Tensor, nn

from methods.masking.output_units import chosen_weights, maskable_weights, masked_count, ratios_of
from orchestrator.errors import UserError
from orchestrator.training.learner import Learner
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES
from tests.methods.masking.masked import masked_learner, moved_units_of
from tests.methods.reference import batches_of

# What the paper masks, spelt out for each architecture: query, key, value, output, feed-forward
MASKED = {
    "tiny-t5": ("SelfAttention.q SelfAttention.k SelfAttention.v SelfAttention.o EncDecAttention.q EncDecAttention.k "
                "EncDecAttention.v EncDecAttention.o DenseReluDense.wi DenseReluDense.wo"),
    "tiny-bert": ("attention.self.query attention.self.key attention.self.value attention.output.dense "
                  "intermediate.dense .output.dense"),
    "tiny-llama": ("self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj "
                   "mlp.down_proj"),
}  # fmt: skip


COUNT = {"tiny-t5": 2 * 6 + 2 * 10, "tiny-bert": 2 * 6, "tiny-llama": 2 * 7}


@pytest.mark.parametrize(
    ("ratio", "units", "masked"),
    [(0.3, 10, 7), (0.3, 64, 44), (1.0, 64, 0), (0.9, 10, 1), (0.7, 10, 3), (0.05, 128, 121), (0.1, 30, 27)],
)
def test_masked_units_are_the_floor_of_the_masked_share(ratio: float, units: int, masked: int) -> None:
    assert masked_count(ratio, units) == masked


@pytest.mark.parametrize("model", FAMILIES)
def test_embeddings_heads_and_norms_are_never_masked(model: str, learner_of: Callable[..., Learner]) -> None:
    names = [weight.name for weight in maskable_weights(learner_of(model=model).family.module)]
    assert len(names) == COUNT[model]
    assert not [n for n in names if any(x in n for x in ("lm_head", "embed", "shared", "norm", "pooler", "classifier"))]


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to mask"):
        maskable_weights(nn.Sequential(nn.ReLU()))


ATTENTION = {"tiny-t5": 2 * 4 + 2 * 8, "tiny-bert": 2 * 4, "tiny-llama": 2 * 4}


FFN = {"tiny-t5": 2 * 2 + 2 * 2, "tiny-bert": 2 * 2, "tiny-llama": 2 * 3}


@pytest.mark.parametrize("model", FAMILIES)
def test_layer_groups(model: str, learner_of: Callable[..., Learner]) -> None:
    weights = maskable_weights(learner_of(model=model).family.module)
    attention, ffn = chosen_weights(weights, "attention"), chosen_weights(weights, "ffn")
    assert (len(attention), len(ffn)) == (ATTENTION[model], FFN[model])
    assert [r.name for r in weights if r in attention or r in ffn] == [r.name for r in weights]
    first = chosen_weights(weights, r"\.0\.")
    assert 0 < len(first) < len(weights)
    with pytest.raises(ValueError, match="none of the maskable layers is 'mlq'"):
        chosen_weights(weights, "mlq")


def test_ratios_by_group_and_pattern(learner_of: Callable[..., Learner]) -> None:
    weights = maskable_weights(learner_of(model="tiny-llama").family.module)
    shares = dict(
        zip([r.name for r in weights], ratios_of(weights, {r"q_proj": 0.9, "attention": 0.5, "ffn": 0.1}), strict=True)
    )
    assert {s for n, s in shares.items() if "q_proj" in n} == {0.9}
    assert {s for n, s in shares.items() if "v_proj" in n} == {0.5}
    assert {s for n, s in shares.items() if "mlp" in n} == {0.1}
    assert ratios_of(weights, 0.3) == [0.3] * len(weights)
    with pytest.raises(ValueError, match=r"no entry for layer 'model\.layers\.0\.mlp"):
        ratios_of(weights, {"attention": 0.5})
    with pytest.raises(ValueError, match="'lm_head' is for none"):
        ratios_of(weights, {"attention": 0.5, "ffn": 0.5, "lm_head": 0.1})


def test_each_layer_moves_its_own_share(learner_of: Callable[..., Learner]) -> None:
    units = moved_units_of(masked_learner(learner_of, settings={"ratio": {"attention": 0.25, "ffn": 0.75}}))
    assert all(n == 32 // 4 for name, n in units.items() if name.endswith(("Attention.q.weight", "Attention.v.weight")))
    assert all(n == 32 * 3 // 4 for name, n in units.items() if name.endswith(".wo.weight"))
    units = moved_units_of(masked_learner(learner_of, settings={"ratio": 0.25, "layers": "attention"}))
    assert all(n == 32 // 4 for name, n in units.items() if name.endswith(".v.weight"))
    assert all(n == 32 for name, n in units.items() if name.endswith(".wo.weight"))


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-llama"])
def test_released_masks_every_linear_layer_and_counts_padding(model: str, learner_of: Callable[..., Learner]) -> None:
    learner = masked_learner(learner_of, model=model, settings={"released": True, "ratio": 0.3})
    module = learner.family.module
    sums: dict[str, Tensor] = {}
    other = copy.deepcopy(module)
    for name, layer in other.named_modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(
                lambda m, i, o, name=name: sums.__setitem__(name, o.detach().abs().flatten(0, 1).sum(0))
            )
    (step,) = batches_of(learner, 0)
    learner.family.module = other
    learner.family.forward(other, step.batch)
    learner.family.module = module
    before = {n: layer.weight.detach().clone() for n, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    train_task(learner, 0, lambda event: None)
    assert "lm_head" in sums
    for name, size in sums.items():
        moved = (module.get_submodule(name).weight.detach() != before[name]).any(1)
        # the quantile lies between it and the next unit, as 0.7 (d - 1) is no whole number: it is masked too
        assert 7 * (len(size) - 1) % 10
        threshold = sorted(size.tolist())[int(0.7 * (len(size) - 1))]
        assert not moved[size <= threshold].any(), name
        if name.endswith(("lm_head", ".q", ".v", ".wo", ".v_proj", ".down_proj")):
            assert moved[size > sorted(size.tolist())[int(0.7 * (len(size) - 1)) + 1]].all(), name


def test_released_with_lora_is_refused(learner_of: Callable[..., Learner]) -> None:
    with pytest.raises(UserError, match="masks nothing in LoRA"):
        masked_learner(learner_of, "lora", settings={"released": True})
