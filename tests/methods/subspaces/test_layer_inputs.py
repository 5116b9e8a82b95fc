"""What enters a layer: sums over real tokens alone, the same in any micro-batches, in float32 at least."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from methods import Batch, Context, TokenStream, generator
from methods.shared.token_streams import Reading
from methods.subspaces.layer_inputs import Energies, LayerInputs, Moments

LENGTHS = (3, 1, 2)
MASK = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]])
# what padding holds must not matter, so it holds much
INPUTS = torch.randn(3, 3, 2, generator=torch.Generator().manual_seed(0)) + 100 * (1 - MASK[..., None])
TOKENS = INPUTS[MASK.bool()]


class Model(nn.Module):
    """One layer, on inputs that are given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


def batch_of(examples: list[int], numbers: list[int] | None = None) -> Batch:
    """A micro-batch of some of the three texts, by their numbers in the pass."""
    zeros = torch.zeros(len(examples), dtype=torch.long)
    source = TokenStream(MASK[examples], MASK[examples])
    return Batch(source=source, labels=zeros, classes=zeros, example_indices=numbers or examples)


def run(make: Callable[[Model], LayerInputs], *micro_batches: list[int]) -> LayerInputs:
    """See micro-batches with the layer's inputs."""
    model = Model()
    inputs = make(model)
    for examples in micro_batches:
        inputs.see(batch_of(examples))
        model(INPUTS[examples])
    inputs.close()
    # after closing, nothing is counted
    model(INPUTS)
    return inputs


def moments(sketch: int | None) -> Callable[[Model], Moments]:
    return lambda model: Moments(model, {"layer": model.layer}, sketch, (7, "task"))


@pytest.mark.parametrize("micro_batches", [([0, 1, 2],), ([0], [1], [2]), ([2, 0], [1])])
def test_moments_are_summed_over_real_tokens(micro_batches: tuple[list[int], ...]) -> None:
    found = run(moments(None), *micro_batches)
    assert isinstance(found, Moments)
    expected = torch.zeros(2, 2)
    for x in TOKENS:
        expected += torch.outer(x, x)
    torch.testing.assert_close(found.sums["layer"], expected)
    torch.testing.assert_close(found.moment("layer", Context(0)), expected)


@pytest.mark.parametrize("micro_batches", [([0, 1, 2],), ([0], [1], [2]), ([2, 0], [1])])
def test_a_sketch_draws_for_each_example_by_its_number(micro_batches: tuple[list[int], ...]) -> None:
    """S = sum of x omega^T over the tokens; what stands for the moment is S S^T."""
    found = run(moments(5), *micro_batches)
    assert isinstance(found, Moments)
    sketch = torch.zeros(2, 5)
    for example, length in enumerate(LENGTHS):
        omegas = torch.randn(length, 5, generator=generator(7, "task", "attention_mask", example))
        for token in range(length):
            sketch += torch.outer(INPUTS[example, token], omegas[token])
    torch.testing.assert_close(found.sums["layer"], sketch)
    torch.testing.assert_close(found.moment("layer", Context(0)), sketch @ sketch.T)


def test_workers_are_averaged_before_a_sketch_is_squared() -> None:
    """With a worker beside us whose sum is three times ours, the mean is twice ours: a moment of four times."""
    context = Context(0, mean_over_workers=lambda tensor: 2 * tensor)
    for sketch, factor in ((None, 2), (5, 4)):
        found = run(moments(sketch), [0, 1, 2])
        assert isinstance(found, Moments)
        torch.testing.assert_close(found.moment("layer", context), factor * found.moment("layer", Context(0)))


def test_energies_in_a_basis_and_of_the_whole() -> None:
    """Along (0.6, 0.8) and (0, 1), which need not stand at right angles, and last the squared length."""
    basis = torch.tensor([[0.6, 0.0], [0.8, 1.0]])
    found = run(lambda model: Energies(model, {"layer": model.layer}, {"layer": basis}), [0, 1], [2])
    assert isinstance(found, Energies)
    first = second = whole = 0.0
    for a, b in TOKENS.tolist():
        first += (0.6 * a + 0.8 * b) ** 2
        second += b**2
        whole += a**2 + b**2
    assert found.sums["layer"].tolist() == pytest.approx([first, second, whole], rel=1e-5)


@pytest.mark.parametrize("sketch", [None, 5])
def test_sums_are_not_rounded_by_autocast(sketch: int | None) -> None:
    exact = run(moments(sketch), [0, 1, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = run(moments(sketch), [0, 1, 2])
    assert isinstance(exact, Moments)
    assert isinstance(rounded, Moments)
    assert torch.equal(rounded.sums["layer"], exact.sums["layer"])


def test_a_model_in_bfloat16_is_summed_in_float32() -> None:
    model = Model().bfloat16()
    inputs = moments(None)(model)
    inputs.see(batch_of([0]))
    model(torch.tensor([[[1.0, 0], [1 / 16, 0], [0, 0]]]).bfloat16())
    assert inputs.sums["layer"][0, 0].item() == 1 + 1 / 256, "which bfloat16 rounds to 1"


def test_label_texts_belong_to_no_example_and_are_not_counted() -> None:
    model = Model()
    model.reading = Reading()  # type: ignore[assignment]
    inputs = moments(None)(model)
    inputs.see(batch_of([0]).replace(options=TokenStream(MASK, MASK)))
    model(INPUTS[[0]])
    before = inputs.sums["layer"].clone()
    with model.reading.switched_to("options"):  # type: ignore[union-attr, operator]
        model(INPUTS)
    assert torch.equal(inputs.sums["layer"], before)


def test_what_to_do_with_the_tokens_each_kind_must_say() -> None:
    with pytest.raises(NotImplementedError):
        run(lambda model: LayerInputs(model, {"layer": model.layer}), [0])
