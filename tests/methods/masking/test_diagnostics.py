"""Diagnostics by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from methods.masking.diagnostics import (
    kept_by_samples,
    kept_overlap,
    kept_share,
    leaked_share,
    moved_units,
    update_norm,
)
from methods.masking.migu import Migu
from orchestrator.errors import UserError
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import train_task
from tests.methods.masking.masked import masked_learner


def test_kept_share() -> None:
    assert kept_share(torch.tensor([0.0, 2.0, 4.0, 4.0]), 4) == pytest.approx(1 - 10 / 16)
    assert kept_share(torch.zeros(3), 0) == 1.0


def test_kept_by_samples() -> None:
    sizes = torch.tensor([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0], [1.0, 4.0, 3.0, 2.0]])
    assert kept_by_samples(sizes, 2).tolist() == [1, 2, 2, 1]
    assert kept_by_samples(sizes, 0).tolist() == [3, 3, 3, 3]


def test_overlap_of_one_sample_each_is_the_share_of_common_units() -> None:
    a, b = torch.tensor([1, 1, 0, 0]), torch.tensor([0, 1, 1, 0])
    assert kept_overlap([{"x": a}, {"x": b}]) == [[1.0, 0.5], [0.5, 1.0]]
    assert kept_overlap([{"x": a, "y": a}, {"x": b, "y": a}]) == [[1.0, 0.75], [0.75, 1.0]]
    assert kept_overlap([{"x": a}, {"x": b, "y": a}]) == [[1.0, 0.5], [0.5, 1.0]], "over the layers that both have"


def test_overlap_of_counts() -> None:
    a, b = torch.tensor([3, 1, 0]), torch.tensor([1, 1, 2])
    assert kept_overlap([{"x": a}, {"x": b}])[0][1] == pytest.approx(0.25 + 0.25)
    assert kept_overlap([]) == []


def test_moved_units_and_update_norm() -> None:
    before = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    after = torch.tensor([[1.0, 2.0], [3.0, 4.5], [5.0, 7.0]])
    assert moved_units(before, after, torch.tensor([True, True, False])) == 1
    assert moved_units(before, after, torch.tensor([True, True, True])) == 2
    assert update_norm(
        {"w": before, "b": torch.zeros(1)}, {"w": after, "b": torch.ones(1) * 2}, before
    ) == pytest.approx((0.25 + 1 + 4) ** 0.5)


def test_leaked_share() -> None:
    basis = torch.tensor([[1.0], [0.0]])
    assert leaked_share([(torch.tensor([[3.0, 4.0]]), basis)], basis) == pytest.approx(0.6)
    assert leaked_share(
        [(torch.tensor([[3.0, 0.0]]), basis), (torch.tensor([[0.0, 4.0]]), basis)], basis
    ) == pytest.approx(0.6)
    assert leaked_share([], torch.zeros(1)) == 0.0


def test_overlap_is_kept_over_a_stop(learner_of: Callable[..., Learner]) -> None:
    """Three tasks at once, or a learner that takes the checkpoint after the second: the same matrix."""
    method = {"tuning": "full", "plugins": [{"name": "migu", "diagnostics": True}]}
    learner = learner_of(out="whole", methods=[method], stream={"max_train": 16})
    for task in range(3):
        trained = train_task(learner, task, lambda event: None)
        if task == 1:
            state = copy.deepcopy(trained)
    whole = learner.stack.collect_diagnostics(2)
    overlap = whole["migu/overlap"]
    assert isinstance(overlap, list)
    matrix = torch.tensor(overlap)
    assert matrix.shape == (3, 3)
    torch.testing.assert_close(matrix, matrix.T)
    torch.testing.assert_close(matrix.diagonal(), torch.ones(3))
    assert 0.3 < float(matrix.min()) < 1 - 1e-4
    store = Store(Path(learner.sequence.out))
    store.save("two", state, {})
    again = learner_of(out="again", methods=[method], stream={"max_train": 16})
    again.load(store.load("two"), 2)
    train_task(again, 2, lambda event: None)
    assert again.stack.collect_diagnostics(2) == whole
    shares = whole["migu/kept_share"]
    assert isinstance(shares, list)
    assert all(0.3 <= s < 0.35 for s in shares)


def test_diagnostics_change_no_weight_and_shares_the_first_task(sequence_of: Callable[..., SequencePlan]) -> None:
    few = {"stream": {"max_train": 16, "first": 3}}
    plain = sequence_of(**few)
    parts = [{"name": "migu", "diagnostics": on} for on in (True, False)]
    on, off = (sequence_of(methods=[{"tuning": "full", "plugins": [part]}], **few) for part in parts)
    assert on.keys[1] == off.keys[1] == plain.keys[1]
    assert on.keys[2] != off.keys[2]
    for sequence in (on, off):
        run_sequence(sequence, evaluate=False)
    states = [Store(Path(s.out)).load(s.keys[3]) for s in (on, off)]
    for name, weight in states[0].weights.items():
        assert torch.equal(weight, states[1].weights[name])
    assert not states[1].method
    assert sorted(states[0].method["0:migu"]["kept_samples"]) == ["0", "1", "2"]


UNMASKED = {"name": "migu", "masks": False, "ratio": 0.25}


def test_plain_fine_tuning_has_an_overlap_too(sequence_of: Callable[..., SequencePlan]) -> None:
    """After fine-tuning in the same store, whose first task it shares: the same weights, and the overlap by hand."""
    few = {"stream": {"max_train": 16, "first": 3}}
    plain = sequence_of(methods=["ft"], **few)
    measured = sequence_of(methods=[{"name": "ft", "tuning": "full", "plugins": [UNMASKED]}], **few)
    for sequence in (plain, measured):
        run_sequence(sequence, evaluate=False)
    store = Store(Path(plain.out))
    assert measured.keys[1] == plain.keys[1]
    assert measured.keys[2] != plain.keys[2], "whose checkpoint has no overlap"
    numbers = {}
    for tasks_seen in (1, 2, 3):
        weights = store.load(measured.keys[tasks_seen]).weights
        assert all(torch.equal(w, weights[n]) for n, w in store.load(plain.keys[tasks_seen]).weights.items())
        numbers = store.history(measured.keys[tasks_seen])["diagnostics"]
    assert set(numbers["migu/kept_share"]) == {1.0}
    assert numbers["migu/update_norm"] > 0
    shares = [_shares_that_keep(plain, task, 0.25) for task in range(3)]
    for a in range(3):
        for b in range(3):
            common = [float(torch.minimum(p, shares[b][n]).sum()) for n, p in shares[a].items()]
            assert numbers["migu/overlap"][a][b] == pytest.approx(sum(common) / len(common), abs=1e-6)


def _shares_that_keep(sequence: SequencePlan, task: int, keep: float) -> dict[str, torch.Tensor]:
    """By layer: how the task's examples, one by one, share out what they would keep after it was learnt."""
    learner = Learner(sequence, sequence.open_stream(), Parallel())
    learner.load(Store(Path(sequence.out)).load(sequence.keys[task + 1]), task + 1)
    module = learner.family.module.eval()
    counts: dict[str, torch.Tensor] = {}

    def count(name: str) -> Callable[..., None]:
        def hook(layer: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
            (tokens,) = output.detach()
            kept = tokens.abs().mean(0).topk(round(keep * tokens.shape[1])).indices
            counts.setdefault(name, torch.zeros(tokens.shape[1]))[kept] += 1

        return hook

    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Linear) and ".block." in name:
            layer.register_forward_hook(count(name))
    with torch.no_grad():
        for feature in learner.features(task):
            # without padding: T5 has the answer's tokens, shifted, in its decoder
            source, target = torch.tensor([feature["source"]]), torch.tensor([feature["target"]])
            module(input_ids=source, labels=target)
    return {name: c / c.sum() for name, c in counts.items()}


def test_the_overlap_alone_needs_weights_that_tasks_share(learner_of: Callable[..., Learner]) -> None:
    with pytest.raises(UserError, match="each task trains weights of its own"):
        learner_of(methods=[{"tuning": "inclora", "plugins": [UNMASKED]}])


def test_the_first_task_is_measured_as_if_it_had_just_ended(learner_of: Callable[..., Learner]) -> None:
    """What is counted when the second task begins is what was there when the first one ended."""
    settings = {"mask_first_task": True, "ratio": 0.3}
    first = masked_learner(learner_of, settings=settings, stream={"max_train": 24})
    train_task(first, 0, lambda event: None)
    (_, ended) = first.stack.parts[1]
    again = masked_learner(learner_of, settings={"ratio": 0.3}, stream={"max_train": 24})
    _ = again.family
    again.family.load_weights(first.weights(), again.parallel.write_rows)
    (_, begins) = again.stack.parts[1]
    begins.before_task(again.family.module, 1, [])
    assert isinstance(ended, Migu)
    assert isinstance(begins, Migu)
    assert begins.kept_samples["0"].keys() == ended.kept_samples["0"].keys()
    for name, counts in ended.kept_samples["0"].items():
        assert torch.equal(counts, begins.kept_samples["0"][name]), name


@pytest.mark.parametrize("tuning", ["moelora", "inclora", "olora"])
def test_tuning_methods_that_grow_have_diagnostics_too(tuning: str, learner_of: Callable[..., Learner]) -> None:
    """A mixture keeps its layers and gets more; an adapter a task has no units in common with the others'."""
    learner = learner_of(methods=[{"tuning": tuning, "plugins": ["migu"]}], stream={"max_train": 16})
    for task in range(3):
        numbers = train_task(learner, task, lambda event: None).history["diagnostics"]
        assert ("migu/overlap" in numbers) == (tuning == "moelora" and task > 0)
    assert numbers["migu/update_norm"] > 0
    if tuning == "moelora":
        overlap = numbers["migu/overlap"]
        assert len(overlap) == 3
        assert 0 < overlap[0][2] <= 1
