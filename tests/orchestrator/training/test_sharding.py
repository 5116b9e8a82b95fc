"""Workers of which each holds a part of the model give what one gives that has all of it.

In float64, as in `test_parallel`: a difference is one of logic, not of rounding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from methods import METHODS, MethodSpec, method_class, method_spec
from orchestrator.config.experiment import RunConfig
from orchestrator.planning.planner import plan
from orchestrator.training.sequence import run_sequence
from orchestrator.training.sharding import _blocks, _kept_whole
from tests.conftest import small_config
from tests.orchestrator.training.helpers import ANNEALED, EWC
from tests.orchestrator.training.test_parallel import ROOT, compare, run_workers


def full(*plugins: Any) -> dict[str, Any]:
    """Full fine-tuning with plug-ins, under a name of its own."""
    names = [plugin if isinstance(plugin, str) else "-".join(map(str, plugin.values())) for plugin in plugins]
    return {
        "name": "+".join(["full", *names]).replace("{", "(").replace("}", ")"),
        "tuning": "full",
        "plugins": [*plugins],
    }


# Each method with settings that count, on the families in turns: what a family does in parts, plain training shows
BY_FAMILY: dict[str, list[Any]] = {
    "tiny-t5": [
        "ft",
        full({"name": "migu", "freeze_masked": True, "diagnostics": True}),
        full("random_mask"),
        full({"name": "replay", "fraction": 0.3}),
        full({"name": "ewc", "strength": 1e3, "samples": 9}),
        full({"name": "lwf", "strength": 3.0}),
        full({"name": "agem", "fraction": 0.3, "examples": 7, "margin": 1.0}),
        full({"name": "derpp", "fraction": 0.3, "examples": 5}),
        full({"name": "projection", "epsilon": 0.9, "samples": 9, "project_update": True}),
        full({"name": "merge", "rule": "opcm"}),
        full({"name": "das", "samples": 9}),
        "lora+migu",
        "inclora",
        {"name": "olora", "tuning": {"name": "olora", "lambda2": 0.1}},
        "progprompt",
        "l2p",
        "coso",
        "nmc",
        "hat",
    ],
    "tiny-llama": [
        "ft+migu",
        full({"name": "migu", "importance": "weight", "cluster": "weights", "clusters": 4}),
        full({"name": "mas", "samples": 9}),
        full({"name": "l2", "strength": 10.0}),
        full({"name": "merge", "rule": "ties"}),
        full({"name": "merge", "rule": "dare"}),
        full({"name": "conpet", "rho": 1.5, "fraction": 0.5}),
        "lora+migu",
        "mora",
        "exssnet",
        "epi",
        "dynamic-conpet",
        "fetril",
    ],
    "tiny-bert": ["ft+migu", full({"name": "ewc", "strength": 1e3, "samples": 9}), "moelora", "mocl", "slca"],
}


def configs(out: Path, model: str, methods: list[Any], **changes: Any) -> list[RunConfig]:
    """Two micro-batches a worker and step, a step or two a task."""
    stream = {"first": 3, "max_train": 12, "max_test": 2}
    return [small_config(out, model=model, methods=methods, stream=stream, training={"micro_batch": 2}, **changes)]


@pytest.fixture
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.slow
@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("model", BY_FAMILY)
def test_two_workers_that_share_a_model_give_what_one_gives(model: str, tmp_path: Path) -> None:
    methods = BY_FAMILY[model]
    for sequence in plan(*configs(tmp_path / "one", model, methods)):
        run_sequence(sequence)
    run_workers(configs(tmp_path / "two", model, methods), tmp_path, "fsdp")
    for sequence in plan(*configs(tmp_path / "one", model, methods)):
        compare(sequence, sequence.model_copy(update={"out": str(tmp_path / "two")}), 0)


@pytest.mark.slow
@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("parts_first", [True, False], ids=["parts-first", "whole-first"])
def test_a_sequence_goes_on_with_another_number_of_workers(parts_first: bool, tmp_path: Path) -> None:
    """With what is kept by parameter: the optimizer's moments, importances and anchors, task vectors."""
    annealed = {**EWC, "training": ANNEALED}
    methods = [annealed, full({"name": "merge", "rule": "arithmetic"}), full({"name": "migu", "diagnostics": True})]
    for sequence in plan(*configs(tmp_path / "one", "tiny-t5", methods)):
        run_sequence(sequence)
    second = configs(tmp_path / "two", "tiny-t5", methods)
    if parts_first:
        run_workers(second, tmp_path, "fsdp", until=2)
        for sequence in plan(*second):
            run_sequence(sequence)
    else:
        for sequence in plan(*second):
            run_sequence(sequence, until=2)
        run_workers(second, tmp_path, "fsdp")
    for sequence in plan(*configs(tmp_path / "one", "tiny-t5", methods)):
        compare_states(sequence, tmp_path / "two")


def compare_states(sequence: Any, out: Path) -> None:
    """The last state's weights, to the rounding of float64."""
    from orchestrator.store.checkpoints import Store

    one = Store(Path(sequence.out)).load(sequence.keys[-1])
    other = Store(out).load(sequence.keys[-1])
    assert set(one.weights) == set(other.weights)
    for name, weight in one.weights.items():
        torch.testing.assert_close(other.weights[name], weight, rtol=1e-6, atol=1e-6, msg=f"{sequence.id}: {name}")


def test_every_method_is_tried_in_parts_or_says_why_it_cannot_be() -> None:
    tried = set()
    for methods in BY_FAMILY.values():
        for method in methods:
            spec = method_spec(method) if isinstance(method, str) else MethodSpec.model_validate(method)
            tried |= {part.name for part in (spec.tuning, *spec.plugins)}
    for name in METHODS:
        card = method_class(name).card
        assert (name in tried) != bool(card.not_sharded), name


def test_what_cannot_be_in_parts_is_refused_in_one_line() -> None:
    wanted = {"workers": 2, "strategy": "fsdp"}
    with pytest.raises(ValueError, match=r"scaling.strategy: 'fsdp' cannot be combined with 'osf': it trains factors"):
        small_config(Path("out"), methods=["osf"], scaling=wanted)
    # a single worker has the whole model, and one of two all of it without a strategy
    small_config(Path("out"), methods=["osf"], scaling={**wanted, "workers": 1})
    small_config(Path("out"), methods=["osf"], scaling={"workers": 2})


def test_nobody_differentiates_by_parameters_past_the_seam() -> None:
    """autograd.grad says of a sharded parameter, silently, that nothing depends on it; float() of one sees a part."""
    found = []
    for path in sorted((ROOT / "methods").rglob("*.py")):
        for line in path.read_text().splitlines():
            if re.search(r"autograd\.grad\(|float\([a-z_.]*(weight|parameter|p)(\.grad)?\.", line):
                found.append(path.relative_to(ROOT).as_posix())
    assert found == ["methods/base.py"]


def test_what_is_gathered_at_a_time_is_a_block() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_heads": 2, "vocab_size": 20, "num_decoder_layers": 3}
    model = T5ForConditionalGeneration(T5Config(**sizes, num_layers=2))
    assert list(_blocks(model)) == [*model.encoder.block, *model.decoder.block]


def test_whole_is_what_trains_beside_a_frozen_base_and_the_head() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    head = list(model[1].parameters())
    assert _kept_whole(model, head) == set(head)
    assert _kept_whole(model, []) == set()
    model[0].weight.requires_grad_(False)
    assert _kept_whole(model, []) == {model[0].bias, *head}
