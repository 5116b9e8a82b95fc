"""The form in which weights are stored: whose it is, and what it does not go with."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from torch import Tensor, nn

from methods import Context, Method, Settings, Stack, StoredForm
from methods.full import Full, FullSettings


class Halved(StoredForm, Method):
    """Stores half the weights."""

    def packed(self, model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: weight / 2 for name, weight in weights.items()}

    def unpacked(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: 2 * weight for name, weight in stored.items()}


def stack(*parts: type[Method]) -> Stack:
    plugins = [(part.__name__, part(Settings(), Context(0))) for part in parts]
    return Stack(Full(FullSettings(), Context(0)), plugins, "full")


def test_it_is_that_of_the_part_that_has_one() -> None:
    assert isinstance(stack(Method, Halved).stored_form, Halved)
    assert stack(Method).stored_form is None


def test_whoever_forgets_the_part_is_told() -> None:
    for hook in ("packed", "unpacked"):
        with pytest.raises(TypeError, match=f"{hook} is never called unless the class derives from StoredForm"):
            type("Forgetful", (Method,), {hook: getattr(Halved, hook)})
