"""How large output units are: by hand, over micro-batches, by example; which tokens count."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from methods import Context
from methods.masking.magnitudes import Magnitudes, example_magnitudes
from methods.masking.output_units import maskable_weights
from orchestrator.training.learner import Learner
from orchestrator.training.task import TaskBatches
from tests.methods.toy import batch_with_mask


def test_padding_does_not_count_unless_asked() -> None:
    layer = nn.Linear(2, 2, bias=False)
    model = nn.ModuleDict({"0": layer})
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -2.0]]))
    x = torch.tensor([[[1.0, 1.0], [10.0, 0.0]]])
    for count_padding, expected in ((False, [1.0, 2.0]), (True, [11.0, 2.0])):
        magnitudes = Magnitudes(model, maskable_weights(model), count_padding)
        magnitudes.see(batch_with_mask(torch.tensor([[1, 0]])))
        layer(x)
        ((_, size),) = magnitudes.take(lambda t: t)
        magnitudes.close()
        assert size.tolist() == expected


def test_magnitudes_add_up_over_micro_batches_and_start_anew() -> None:
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(2.0)
    model = nn.ModuleDict({"0": layer})
    magnitudes = Magnitudes(model, maskable_weights(model), count_padding=True)
    layer(torch.tensor([[[1.0]]]))
    layer(torch.tensor([[[-3.0]]]))
    assert [size.item() for _, size in magnitudes.take(lambda t: t)] == [8.0]
    assert [size.item() for _, size in magnitudes.take(lambda t: t)] == [0.0]


def test_per_token_norm_by_hand() -> None:
    """Two tokens with |y| = (3, 1) and (1, 7): summed (4, 8); each divided by its own sum (3/4 + 1/8, 1/4 + 7/8)."""
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
    model = nn.ModuleDict({"0": layer})
    x = torch.tensor([[[3.0, 1.0], [1.0, 7.0], [0.0, 0.0]]])
    for norm, expected in ((False, [4.0, 8.0]), (True, [0.875, 1.125])):
        magnitudes = Magnitudes(model, maskable_weights(model), per_token_norm=norm)
        magnitudes.see(batch_with_mask(torch.tensor([[1, 1, 1]])))
        layer(x)
        ((_, size),) = magnitudes.take(lambda t: t)
        magnitudes.close()
        assert size.tolist() == expected


def test_other_methods_passes_do_not_count() -> None:
    layer = nn.Linear(1, 1, bias=False)
    model = nn.ModuleDict({"0": layer})
    magnitudes = Magnitudes(model, maskable_weights(model))
    batch, x = batch_with_mask(torch.ones(1, 1)), torch.ones(1, 1, 1)
    magnitudes.see(batch)
    layer(x)
    magnitudes.pause()
    layer(x)
    magnitudes.see(batch)
    layer.eval()
    layer(x)
    ((_, size),) = magnitudes.take(lambda t: t)
    assert size.item() == layer.weight.abs().item()


class Given(nn.Linear):
    """A layer whose output is given to it: the same inside autocast and outside."""

    def forward(self, output: Tensor) -> Tensor:
        return output


def test_autocast_does_not_round_the_sums() -> None:
    """From the same outputs, inside bfloat16 autocast and outside: the same sums, bit for bit, and the same masks."""
    rng = torch.Generator().manual_seed(0)
    # units as alike as those of a trained layer: bfloat16's three digits would make ties of many
    output = torch.randn(8, 40, 256, generator=rng).to(torch.bfloat16)
    mask = (torch.rand(8, 40, generator=rng) < 0.8).long()
    layer = Given(1, 256, bias=False)
    model = nn.ModuleDict({"0": layer})
    found = []
    for autocast in (False, True):
        magnitudes = Magnitudes(model, maskable_weights(model))
        magnitudes.see(batch_with_mask(mask))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            layer(output)
        ((_, size),) = magnitudes.take(lambda t: t.clone())
        magnitudes.close()
        found.append(size)
    outside, inside = found
    assert torch.equal(inside, outside)
    exact = output[mask.bool()].double().abs().sum(0)
    torch.testing.assert_close(inside.double(), exact, rtol=1e-6, atol=0)
    smallest = torch.argsort(exact, stable=True)[:179].tolist()
    assert torch.argsort(inside, stable=True)[:179].tolist() == smallest
    rounded = torch.argsort(exact.bfloat16(), stable=True)[:179].tolist()
    assert set(rounded) != set(smallest), "rounding would mask others"


def test_example_magnitudes(learner_of: Callable[..., Learner]) -> None:
    """Against single examples, in the order of their indices; the same in any micro-batch."""
    found = []
    for micro in (2, 8):
        learner = learner_of(stream={"max_train": 16}, training={"micro_batch": micro})
        module = learner.family.module
        learner.family.at_task(0, 3)
        weights = maskable_weights(module)
        context = Context(7, forward=learner.forward)
        batches = TaskBatches(learner, learner.features(0), 0)
        found.append(example_magnitudes(context, module, weights, batches, 10, False))
    for two, eight in zip(*found, strict=True):
        assert two.shape[0] == 10
        torch.testing.assert_close(two, eight)
    query = module.encoder.block[0].layer[0].SelfAttention.q
    outputs: list[Tensor] = []
    query.register_forward_hook(lambda m, i, o: outputs.append(o.detach()))
    batch = next(iter(batches))
    ids, mask = batch.source.ids[3:4], batch.source.mask[3:4].bool()
    with torch.no_grad():
        module(input_ids=ids[:, mask[0]], decoder_input_ids=torch.zeros(1, 1, dtype=torch.long))
    index = [w.measured for w in weights].index(query)
    sizes = outputs[0].abs()[0]
    torch.testing.assert_close(found[1][index][3], sizes.mean(0))
    shares = example_magnitudes(context, module, weights, batches, 10, True)
    torch.testing.assert_close(shares[index][3], (sizes / sizes.sum(1, keepdim=True)).mean(0))
