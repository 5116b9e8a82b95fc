"""A method as a user writes it: the ways to write one, what is filled in, and the one line that refuses what cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from methods import Card, Context, MethodSpec, Part, Stack, method_spec
from methods.masking.migu import Migu
from methods.spec import missing_for

MIGU = {"name": "migu", "ratio": 0.5}


def test_a_part_is_a_name_or_a_name_with_settings() -> None:
    short = Part.model_validate("migu")
    assert short == Part.model_validate({"name": "migu"})
    assert short.settings["ratio"] == 0.3, "defaults are filled in: a part that spells them out has the same key"
    given = Part.model_validate(MIGU)
    assert (given.name, given.settings["ratio"]) == ("migu", 0.5)
    assert Part.model_validate(given.model_dump()) == given
    assert MIGU == {"name": "migu", "ratio": 0.5}, "the user's mapping stays as it was"
    assert (given.type, given.is_tuning, Part.model_validate("lora").is_tuning) == (Migu, False, True)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "expected a method's name, or a mapping with `name` and its settings"),
        ({"ratio": 0.5}, "expected a method's name, or a mapping with `name`"),
        ({"name": ["migu"]}, "expected a method's name, or a mapping with `name`"),
        ("mgiu", "unknown method part 'mgiu'. Did you mean 'migu'?"),
        ({"name": "migu", "ration": 0.5}, "migu: unknown key 'ration'. Did you mean 'ratio'?"),
        ({"name": "migu", "ratio": 2}, "migu.ratio: a share must be greater than 0 and less than or equal to 1"),
        ({"name": "lora", "r": 0}, "lora.r: Input should be greater than or equal to 1 (found 0)"),
        ({"name": "migu", "ratio": True}, "migu.ratio: found True where a number or a text is expected"),
    ],
)
def test_a_part_that_cannot_be_is_one_line(value: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Part.model_validate(value)
    (error,) = caught.value.errors()  # type: ignore[attr-defined]
    assert message in error["msg"]
    assert "\n" not in error["msg"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"tuning": "migu"}, "'migu' is a plug-in, not a tuning method; tuning methods: full, lora, "),
        ({"plugins": ["lora"]}, "'lora' is a tuning method, not a plug-in; plug-ins: migu, "),
        ({"reference": "joinnt"}, "unknown reference run 'joinnt'. Did you mean 'joint'?"),
        ({"plugin": ["migu"]}, "Extra inputs are not permitted"),
        ({"tuning": "nmc", "plugins": ["migu"]}, "'migu': 'nmc' trains nothing, so there is nothing that a plug-in"),
        (
            {"plugins": ["ewc"], "reference": "joint"},
            "'ewc': the reference run 'joint' trains no sequence, so there is",
        ),
        (
            {"tuning": "lora", "reference": "zero-shot"},
            "zero-shot is the untrained model, to which 'lora' adds nothing",
        ),
        ({"tuning": "nmc", "reference": "expert"}, "the reference run 'expert' needs a tuning method that trains"),
        ({"tuning": "inclora", "reference": "joint"}, "joint training cannot be combined with 'inclora': each task"),
        (
            {"tuning": "inclora", "plugins": ["migu", "ewc"]},
            "'ewc' cannot be combined with 'inclora': each task trains",
        ),
        ({"tuning": "l2p", "plugins": ["migu"]}, "'migu' cannot be combined with 'l2p': "),
        ({"tuning": "coso", "plugins": ["agem"]}, "'agem' cannot be combined with 'coso': "),
        (
            {"tuning": "lora", "plugins": ["graftllm"]},
            "'graftllm' cannot be combined with 'lora': it trains an adapter, which is a small change already",
        ),
        (
            {"tuning": "l2p", "plugins": ["graftllm"]},
            "'graftllm' cannot be combined with 'l2p': it trains soft prompts",
        ),
        ({"tuning": "lfpt5", "plugins": ["graftllm"]}, "cannot be combined with 'lfpt5': it trains a soft prompt"),
        ({"tuning": "olora", "plugins": ["graftllm"]}, "'graftllm' cannot be combined with 'olora': each task"),
        (
            {"plugins": ["graftllm", {"name": "chat_vector", "instruct": "own"}]},
            "'graftllm' does not go with 'chat_vector', which scores other weights than training goes on from",
        ),
        (
            {"plugins": ["graftllm", "tests.methods.seam.test_stored_form.Halved"]},
            "'graftllm' does not go with 'tests.methods.seam.test_stored_form.Halved': both say how weights are stored",
        ),
    ],
)
def test_what_cannot_work_together_is_refused(value: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        method_spec(value)
    (error,) = caught.value.errors()  # type: ignore[attr-defined]
    assert message in error["msg"]
    assert "\n" not in error["msg"]


def test_what_a_plugin_requires_and_a_tuning_method_lacks() -> None:
    """The tuning method's own reason is what the user reads; of several, the first."""
    lacking = Card(no_output_units="no units", per_task_weights="own weights", no_gradients="no gradients")
    demanding = Card(requires_output_units=True, requires_shared_weights=True, requires_gradients=True)
    assert missing_for(Card(requires_output_units=True), lacking) == "no units"
    assert missing_for(Card(requires_shared_weights=True), lacking) == "own weights"
    assert missing_for(Card(requires_gradients=True), lacking) == "no gradients"
    beside = Card(no_own_weights="adapters")
    assert missing_for(Card(requires_own_weights=True), beside) == "adapters"
    assert missing_for(Card(), beside) == missing_for(Card(requires_own_weights=True), lacking) == ""
    assert missing_for(demanding, lacking) == "no units"
    assert missing_for(Card(), lacking) == missing_for(demanding, Card()) == ""


def test_a_preset_is_its_name_and_parts() -> None:
    spec = method_spec("lora+migu")
    assert spec == method_spec({"name": "lora+migu", "tuning": "lora", "plugins": ["migu"]})
    assert MethodSpec.model_validate(spec.model_dump()) == spec
    assert spec.types[1] is Migu
    assert list(spec.code) == ["lora", "migu"]
    with pytest.raises(ValueError, match=r"unknown method 'lora\+mgiu'\. Did you mean 'lora\+migu'\?"):
        method_spec("lora+mgiu")


def test_a_method_without_a_name_is_called_by_its_parts() -> None:
    assert method_spec({}).label == "full"
    assert method_spec({"tuning": "lora", "plugins": ["replay", MIGU]}).label == "lora+replay+migu"
    assert method_spec({"tuning": "lora", "reference": "joint"}).label == "lora (joint)"
    assert method_spec({"name": "mine", "tuning": "lora", "reference": "joint"}).label == "mine"


@pytest.mark.parametrize(
    ("name", "by_gradient", "sequentially"),
    [("ft", True, True), ("joint", True, False), ("zero-shot", False, False), ("nmc", False, False)],
)
def test_what_trains_by_gradient_and_what_a_sequence(name: str, by_gradient: bool, sequentially: bool) -> None:
    spec = method_spec(name)
    assert (spec.trains_by_gradient, spec.trains_sequentially) == (by_gradient, sequentially)


def test_of_several_kept_shares_the_largest_counts() -> None:
    """What is kept of a task is one choice, of which the smaller share is the beginning."""
    both = method_spec({"plugins": [{"name": "agem", "fraction": 0.1}, {"name": "replay", "fraction": 0.05}]})
    assert both.kept_share == 0.1
    assert method_spec("ft+migu").kept_share == 0


def test_it_builds_the_parts_with_their_settings_in_order() -> None:
    context = Context(3)
    stack = method_spec({"tuning": {"name": "lora", "r": 2}, "plugins": ["ewc", MIGU]}).build(context)
    assert isinstance(stack, Stack)
    assert [name for name, _ in stack.parts] == ["lora", "ewc", "migu"]
    assert stack.tuning.settings.r == 2
    assert stack.parts[2][1].settings.ratio == 0.5
    for _, part in stack.parts:
        # whether a part is alone with the gradients is its own
        assert replace(part.context, alone_with_gradients=False) == context
    assert not stack.parts[2][1].context.alone_with_gradients
    alone = method_spec({"tuning": "full", "plugins": [MIGU]}).build(context)
    assert alone.parts[1][1].context.alone_with_gradients
