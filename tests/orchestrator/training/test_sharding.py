"""Workers of which each holds a part of the model give what one gives that has all of it.

In float64, as in `test_parallel`: a difference is one of logic, not of rounding.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from methods import METHODS, MethodSpec, method_class, method_spec
from methods.shared.shards import is_sharded, local, whole
from orchestrator.config.experiment import RunConfig
from orchestrator.planning.planner import plan
from orchestrator.training.sequence import run_sequence
from orchestrator.training.sharding import _kept_whole, current_workers
from tests.conftest import small_config
from tests.gloo import in_workers
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


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("model", BY_FAMILY)
def test_two_workers_that_share_a_model_give_what_one_gives(model: str, tmp_path: Path) -> None:
    methods = BY_FAMILY[model]
    for sequence in plan(*configs(tmp_path / "one", model, methods)):
        run_sequence(sequence)
    run_workers(configs(tmp_path / "two", model, methods), tmp_path, "fsdp")
    sequences = plan(*configs(tmp_path / "one", model, methods))
    assert len(sequences) == len(methods)
    for sequence in sequences:
        compare(sequence, sequence.model_copy(update={"out": str(tmp_path / "two")}), 0)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
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
    sequences = plan(*configs(tmp_path / "one", "tiny-t5", methods))
    assert len(sequences) == len(methods)
    for sequence in sequences:
        compare_states(sequence, tmp_path / "two")


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_the_workers_of_a_node_may_share_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes of two: each node has a copy of the model in parts."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    changes = {"stream": {"first": 2, "max_train": 8, "max_test": 2}, "methods": ["ft+migu"]}
    (sequence,) = plan(small_config(tmp_path / "two", training={"micro_batch": 2}, **changes))

    def check(rank: int) -> None:
        parallel = current_workers(torch.device("cpu"), "hsdp")
        assert parallel.holds_parts
        run_sequence(sequence, parallel=parallel, evaluate=False)

    in_workers(check, 4, tmp_path)
    one = sequence.model_copy(update={"out": str(tmp_path / "one")})
    run_sequence(one, evaluate=False)
    compare_states(one, tmp_path / "two")


def test_nodes_of_different_sizes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")

    def check(rank: int) -> None:
        with pytest.raises(ValueError, match="hsdp needs as many workers on each node; 3 do not divide by the 2"):
            current_workers(torch.device("cpu"), "hsdp").place(torch.nn.Linear(2, 2), [], None)

    in_workers(check, 3, tmp_path)


def test_what_workers_do_with_parts(tmp_path: Path) -> None:
    """A matrix in parts and a bias that each has whole, with gradients known beforehand."""

    def check(rank: int) -> None:
        parallel = current_workers(torch.device("cpu"), "fsdp")
        assert parallel.holds_parts and parallel.dealt_among == (0, 1)
        assert (parallel.keeps_scores, list(parallel.share_of([1, 2]))) == (rank == 0, [1, 2])
        model = torch.nn.Linear(1, 3)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[1.0], [2.0], [3.0]]))
            model.bias.zero_()
        parallel.place(model, [model.bias], None)
        assert is_sharded(model.weight) and not is_sharded(model.bias)
        with parallel.accumulate(model, is_last=True):
            # each worker's share of a sum over both: sum_k (w_k x + b_k), x being 1 on the one and 3 on the other
            parallel.backward(model(torch.tensor([[1.0 + 2 * rank]])).sum())
        parallel.exchange_gradients(model)
        assert model.weight.grad is not None and model.bias.grad is not None
        assert whole(model.weight.grad).flatten().tolist() == [4.0, 4.0, 4.0]
        assert model.bias.grad.tolist() == [2.0, 2.0, 2.0]
        # by hand: 3 * 4^2 + 3 * 2^2
        parameters = list(model.parameters())
        assert parallel.clip_gradients(parameters, None) == pytest.approx(60**0.5)
        assert parallel.clip_gradients(parameters, 1.0) == pytest.approx(60**0.5)
        assert parallel.clip_gradients(parameters, None) == pytest.approx(1.0, rel=1e-5)

        kept = whole(model.weight.grad)
        squares = model(torch.tensor([[2.0]])).square().sum()
        of_weight, of_other = parallel.gradients(model, squares, [model.weight, torch.nn.Parameter(torch.ones(1))])
        assert of_weight is not None and of_other is None
        assert whole(of_weight).flatten().tolist() == [8.0, 16.0, 24.0]
        assert torch.equal(whole(model.weight.grad), kept), "a step's own gradients stay"

        full = parallel.full_state({"w": model.weight, "deeper": {"w": model.weight, "n": 3}, "b": model.bias})
        expected = {"w": [[1.0], [2.0], [3.0]], "deeper": {"w": [[1.0], [2.0], [3.0]], "n": 3}, "b": [0.0] * 3}
        assert as_lists(full) == (expected if rank == 0 else {"deeper": {}})
        parallel.write_rows(model.weight, torch.tensor([[7.0], [8.0], [9.0]]))
        parallel.write_rows(model.bias, torch.tensor([5.0]))
        assert whole(model.weight).flatten().tolist() == [7.0, 8.0, 9.0] and model.bias.tolist() == [5.0, 0.0, 0.0]
        for tensor in (model.weight, model.weight.grad):
            assert parallel.mean(tensor) is parallel.sum(tensor) is parallel.from_first(tensor) is tensor
        assert parallel.mean(torch.tensor(float(rank))) == 0.5
        assert parallel.all_finite([model.weight])
        with torch.no_grad():
            local(model.weight)[0, 0] = float("nan") if rank == 0 else 1.0
        assert not parallel.all_finite([model.weight]), "the one that holds it tells the other"

    def as_lists(state: Any) -> Any:
        if isinstance(state, dict):
            return {name: as_lists(value) for name, value in state.items()}
        return state.tolist() if isinstance(state, torch.Tensor) else state

    in_workers(check, 2, tmp_path)


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


PAST_THE_SEAM = re.compile(r"autograd\.grad\(|float\([a-z_.]*(weight|parameter|p)(\.grad)?\.")


@pytest.mark.parametrize(
    "line", ["torch.autograd.grad(loss, [p])", "float(layer.weight.norm())", "float(p.grad.sum())", "float(p.sum())"]
)
def test_what_goes_past_the_seam_is_seen(line: str) -> None:
    assert PAST_THE_SEAM.search(line)


def test_nobody_differentiates_by_parameters_past_the_seam() -> None:
    """autograd.grad says of a sharded parameter, silently, that nothing depends on it; float() of one sees a part."""
    found = []
    for path in sorted((ROOT / "methods").rglob("*.py")):
        for line in path.read_text().splitlines():
            if PAST_THE_SEAM.search(line):
                found.append(path.relative_to(ROOT).as_posix())
    assert found == ["methods/base.py"]


def test_whole_is_what_trains_beside_a_frozen_base_and_the_head() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    head = list(model[1].parameters())
    assert _kept_whole(model, head) == set(head)
    assert _kept_whole(model, []) == set()
    model[0].weight.requires_grad_(False)
    assert _kept_whole(model, []) == {model[0].bias, *head}
