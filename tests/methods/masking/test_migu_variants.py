"""MIGU beyond the default: what ranks output units, clusters, the released rule, freezing, diagnostics."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods import Context, trainable
from methods.masking.migu import Migu, units_below_quantile
from methods.masking.migu_settings import MiguSettings
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.training.learner import Learner
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import train_task
from tests.methods.reference import batches_of

ATTENTION = {"tiny-t5": 2 * 4 + 2 * 8, "tiny-bert": 2 * 4, "tiny-llama": 2 * 4}


FFN = {"tiny-t5": 2 * 2 + 2 * 2, "tiny-bert": 2 * 2, "tiny-llama": 2 * 3}


def migu(learner_of: Callable[..., Learner], tuning: str = "full", **changes: Any) -> Learner:
    """A learner of one step without weight decay, masked from the first task on."""
    settings = {"name": "migu", "mask_first_task": True, **changes.pop("settings", {})}
    training = {"weight_decay": 0.0, **changes.pop("training", {})}
    method = {"tuning": tuning, "plugins": [settings]}
    return learner_of(methods=[method], training=training, **{"stream": {"max_train": 8}, **changes})


def moved(learner: Learner) -> dict[str, int]:
    """How many rows of each parameter one task moves."""
    before = {n: p.detach().clone() for n, p in trainable(learner.family.module).items()}
    train_task(learner, 0, lambda event: None)
    after = trainable(learner.family.module)
    return {n: int((p.detach() != before[n]).flatten(1).any(1).sum()) for n, p in after.items() if p.ndim > 1}


def test_each_layer_moves_its_own_share(learner_of: Callable[..., Learner]) -> None:
    rows = moved(migu(learner_of, settings={"ratio": {"attention": 0.25, "ffn": 0.75}}))
    assert all(n == 32 // 4 for name, n in rows.items() if name.endswith(("Attention.q.weight", "Attention.v.weight")))
    assert all(n == 32 * 3 // 4 for name, n in rows.items() if name.endswith(".wo.weight"))
    rows = moved(migu(learner_of, settings={"ratio": 0.25, "layers": "attention"}))
    assert all(n == 32 // 4 for name, n in rows.items() if name.endswith(".v.weight"))
    assert all(n == 32 for name, n in rows.items() if name.endswith(".wo.weight"))


@pytest.mark.parametrize(("importance", "kept"), [("weight", [1, 2]), ("gradient", [0, 2])])
def test_weight_and_gradient_importance_by_hand(importance: str, kept: list[int]) -> None:
    layer = nn.Linear(2, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -1.0], [4.0, 0.0], [-2.0, 3.0], [0.5, 0.5]]))
    gradient = torch.tensor([[5.0, -4.0], [1.0, 1.0], [0.0, 9.0], [-1.0, 2.0]])
    layer.weight.grad = gradient.clone()
    method = Migu(MiguSettings(ratio=0.5, importance=importance, diagnostics=False), Context(0))  # type: ignore[arg-type]
    model = nn.ModuleDict({"0": layer})
    method.before_task(model, 1, [])
    method.before_optimizer_step(model)
    expected = torch.zeros(4, 2)
    expected[kept] = gradient[kept]
    assert torch.equal(layer.weight.grad, expected)
    method.after_task(model, 1, [])
    assert method.diagnostics() == {"kept_share": [0.5]}


def test_random_importance_is_the_random_control(sequence_of: Callable[..., SequencePlan]) -> None:
    runs = []
    for name, settings in (("random_mask", {}), ("migu", {"importance": "random"})):
        sequence = sequence_of(name, methods=[{"tuning": "full", "plugins": [{"name": name, **settings}]}])
        run_sequence(sequence, evaluate=False)
        runs.append(Store(Path(sequence.out)).load(sequence.keys[3]).weights)
    assert all(torch.equal(w, runs[1][n]) for n, w in runs[0].items())


@pytest.mark.parametrize("cluster", ["weights", "comagnitude"])
def test_clusters_of_one_row_are_plain_migu(cluster: str, learner_of: Callable[..., Learner]) -> None:
    plain = migu(learner_of, stream={"max_train": 16})
    alone = migu(learner_of, stream={"max_train": 16}, settings={"cluster": cluster, "clusters": 64})
    for learner in (plain, alone):
        train_task(learner, 0, lambda event: None)
    for n, p in trainable(plain.family.module).items():
        assert torch.equal(p, trainable(alone.family.module)[n]), n


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("cluster", ["weights", "comagnitude"])
def test_whole_clusters_move(cluster: str, tuning: str, learner_of: Callable[..., Learner]) -> None:
    """8 clusters of 4 rows, 70 % masked: room for 5 of them in 22 rows, so 20 rows stay and 12 move."""
    rows = moved(migu(learner_of, tuning, settings={"cluster": cluster, "clusters": 8, "ratio": 0.3}))
    end = ".v.weight" if tuning == "full" else ".v.lora_B.default.weight"
    values = [n for name, n in rows.items() if name.endswith(end)]
    assert len(values) == 6
    assert set(values) == {12}


def test_frozen_rows_stand_still_and_others_do_not(learner_of: Callable[..., Learner]) -> None:
    numbers = {}
    for freeze in (False, True):
        settings = {"freeze_masked": freeze, "diagnostics": True, "ratio": 0.2}
        learner = migu(
            learner_of, settings=settings, stream={"max_train": 24}, training={"weight_decay": 0.1, "lr": 1e-2}
        )
        train_task(learner, 0, lambda event: None)
        numbers[freeze] = learner.stack.collect_diagnostics(0)
    assert numbers[False]["migu/moved_though_masked"] > 0
    assert numbers[True]["migu/moved_though_masked"] == 0
    assert numbers[True]["migu/update_norm"] > 0


def test_the_quantile_rule_by_hand() -> None:
    magnitude = torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0])
    # the 0.7 quantile of 1..5 is 1 + 0.7 * 4 = 3.8; the 0.5 quantile is 3, which stays
    assert sorted(units_below_quantile(magnitude, 0.3).tolist()) == [1, 3, 4]
    assert sorted(units_below_quantile(magnitude, 0.5).tolist()) == [1, 3]
    assert units_below_quantile(magnitude, 1.0).tolist() == []


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-llama"])
def test_released_masks_every_linear_layer_and_counts_padding(model: str, learner_of: Callable[..., Learner]) -> None:
    learner = migu(learner_of, model=model, settings={"released": True, "ratio": 0.3})
    module = learner.family.module
    sums: dict[str, Tensor] = {}
    other = copy.deepcopy(module)
    for name, layer in other.named_modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(
                lambda m, i, o, name=name: sums.__setitem__(name, o.detach().abs().flatten(0, 1).sum(0))
            )
    (step,) = batches_of(learner, 0)
    learner.family.forward(other, step.batch)
    before = {n: layer.weight.detach().clone() for n, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    train_task(learner, 0, lambda event: None)
    assert "lm_head" in sums
    for name, size in sums.items():
        rows = (module.get_submodule(name).weight.detach() != before[name]).any(1)
        threshold = sorted(size.tolist())[int(0.7 * (len(size) - 1))]  # the quantile lies at or just above it
        assert not rows[size < threshold].any(), name
        if name.endswith(("lm_head", ".q", ".v", ".wo", ".v_proj", ".down_proj")):
            assert rows[size > sorted(size.tolist())[int(0.7 * (len(size) - 1)) + 1]].all(), name


def test_released_with_lora_is_refused(learner_of: Callable[..., Learner]) -> None:
    learner = migu(learner_of, "lora", settings={"released": True})
    with pytest.raises(ValueError, match="masks nothing in LoRA"):
        train_task(learner, 0, lambda event: None)


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


def test_looking_changes_no_weight_and_shares_the_first_task(sequence_of: Callable[..., SequencePlan]) -> None:
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


def test_the_first_task_is_looked_at_as_if_it_had_just_ended(learner_of: Callable[..., Learner]) -> None:
    """What is counted when the second task begins is what was there when the first one ended."""
    settings = {"mask_first_task": True, "ratio": 0.3}
    first = migu(learner_of, settings=settings, stream={"max_train": 24})
    train_task(first, 0, lambda event: None)
    (_, ended) = first.stack.parts[1]
    again = migu(learner_of, settings={"ratio": 0.3}, stream={"max_train": 24})
    _ = again.family
    again.family.load_weights(first.weights())
    (_, begins) = again.stack.parts[1]
    begins.before_task(again.family.module, 1, [])
    assert isinstance(ended, Migu)
    assert isinstance(begins, Migu)
    assert begins.kept_samples["0"].keys() == ended.kept_samples["0"].keys()
    for name, counts in ended.kept_samples["0"].items():
        assert torch.equal(counts, begins.kept_samples["0"][name]), name


@pytest.mark.parametrize("tuning", ["moelora", "inclora", "olora"])
def test_regimes_that_grow_are_looked_at_too(tuning: str, learner_of: Callable[..., Learner]) -> None:
    """A mixture keeps its layers and gets more; an adapter a task has no rows in common with the others'."""
    learner = learner_of(methods=[{"tuning": tuning, "plugins": ["migu"]}], stream={"max_train": 16})
    for task in range(3):
        numbers = train_task(learner, task, lambda event: None).history["diagnostics"]
        assert ("migu/overlap" in numbers) == (tuning == "moelora" and task > 0)
    assert numbers["migu/update_norm"] > 0
    if tuning == "moelora":
        overlap = numbers["migu/overlap"]
        assert len(overlap) == 3
        assert 0 < overlap[0][2] <= 1
