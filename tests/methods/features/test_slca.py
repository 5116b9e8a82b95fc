"""SLCA: rates, the softmax over new labels, Gaussians against numpy's, and the alignment against gradients by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from methods import generator, trainable
from methods.base import Context
from methods.features.slca import Slca, SlcaSettings, gaussian, normalised
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import State, Store
from orchestrator.training.learner import Learner
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import train_task
from tests.methods import toy

Array = NDArray[np.float64]
QUICK = {"name": "slca", "samples": 6, "epochs": 3, "rate": 0.05}


def of_slca(**changes: Any) -> dict[str, Any]:
    """A small BERT without dropout that SLCA trains on three tasks, of 2, 4 and 5 labels."""
    method = {"tuning": {**QUICK, **changes}, "name": "slca"}
    return {"model": "tiny-bert", "methods": [method], "stream": {"first": 3}, "training": {"micro_batch": 4}}


def test_logits_are_divided_by_the_mean_length_of_the_tasks_logits() -> None:
    logits = torch.tensor([[3.0, 4.0, 0.0, 1.0], [0.0, 2.0, 6.0, 8.0]], dtype=torch.float64)
    # lengths 5 and 1, then 2 and 10; the second task brought no label
    expected = logits / (0.1 * torch.tensor([[3.0], [6.0]], dtype=torch.float64))
    torch.testing.assert_close(normalised(logits, [2, 2, 4], 0.1), expected, rtol=1e-6, atol=0)


def test_a_gaussian_is_the_mean_and_the_unbiased_covariance() -> None:
    features = np.random.default_rng(0).normal(size=(7, 3))
    of_label = gaussian(7.0, torch.tensor(features.sum(0)), torch.tensor(features.T @ features), 2)
    np.testing.assert_allclose(of_label.mean_d.numpy(), features.mean(0))
    np.testing.assert_allclose(of_label.covariance_dd.numpy(), np.cov(features.T) + 1e-4 * np.eye(3))
    alone = torch.tensor(features[0])
    of_one = gaussian(1.0, alone, torch.outer(alone, alone), 0).covariance_dd
    np.testing.assert_allclose(of_one.numpy(), 1e-4 * np.eye(3), atol=1e-12)


def test_new_labels_compete_among_themselves_and_old_ones_with_all() -> None:
    logits = torch.tensor([[5.0, 0.0, 1.0, 2.0], [5.0, 0.0, 1.0, 2.0]])
    batch = toy.batch([0, 1], labels=torch.tensor([3, 1]), num_old_classes=2, loss_denominator=4)
    loss = Slca(SlcaSettings(), Context(0)).after_forward(torch.nn.Linear(1, 1), batch, logits, torch.tensor(9.0))
    new = np.log(np.exp(1) + np.exp(2)) - 2
    old = np.log(np.exp(5) + 1 + np.exp(1) + np.exp(2))
    assert float(loss) == pytest.approx((new + old) / 4, rel=1e-6)
    first = toy.batch([0, 1], labels=torch.tensor([3, 1]), num_old_classes=0, loss_denominator=4)
    unchanged = torch.tensor(9.0)
    assert Slca(SlcaSettings(), Context(0)).after_forward(torch.nn.Linear(1, 1), first, logits, unchanged) is unchanged


@pytest.mark.parametrize(
    ("lrs", "backbone", "head"), [({}, 1e-4, 1e-2), ({"head": 0.05, "*.query.*": 0.03}, 1e-4, 0.05)]
)
def test_the_backbone_moves_slowly(
    lrs: dict[str, float], backbone: float, head: float, learner_of: Callable[..., Learner]
) -> None:
    """AdamW's first step moves each weight by its rate, as far as its gradient is not nearly zero."""
    training = {"lr": 1e-2, "lrs": lrs, "weight_decay": 0.0, "budget": {"steps": 1}}
    learner = learner_of(**{**of_slca(), "training": training})
    before = {name: p.detach().clone() for name, p in trainable(learner.family.module).items()}
    train_task(learner, 0, lambda event: None)
    for name, parameter in trainable(learner.family.module).items():
        rate = head if name.startswith("classifier") else backbone
        if ".query." in name and lrs:
            rate = 0.03
        moved = float((parameter.detach() - before[name]).abs().max())
        if name.endswith(("key.bias", "token_type_embeddings.weight")):
            continue  # no gradient but rounding, or one that another row takes
        assert moved == pytest.approx(rate, rel=2e-2), name


def stored(sequence: SequencePlan, tasks_seen: int) -> State:
    return Store(Path(sequence.out)).load(sequence.keys[tasks_seen])


def head_inputs(learner: Learner, task: int, state: State) -> tuple[Array, Array]:
    """What the head reads of each of a task's texts alone, under stored weights, and the labels."""
    learner.family.load_weights(state.weights, learner.parallel.write_rows)
    model: Any = learner.family.module.eval()
    features, labels = [], []
    with torch.no_grad():
        for feature in learner.features(task):
            features.append(model.bert(input_ids=torch.tensor([feature["source"]])).pooler_output[0].double().numpy())
            labels.append(feature["class_index"])
    return np.array(features), np.array(labels)


def aligned_by_hand(weight: Array, bias: Array, gaussians: dict[int, Any], ends: list[int], task: int) -> Any:
    """Rounds of SGD with momentum, gradients from the formula."""
    tau, samples, epochs = 0.1, QUICK["samples"], QUICK["epochs"]
    velocity = [np.zeros_like(weight), np.zeros_like(bias)]
    starts = [0, *ends[:-1]]
    for epoch in range(epochs):  # type: ignore[call-overload]
        rng = generator(7, "slca", task, epoch)
        drawn, labels = [], []
        for label in sorted(gaussians):
            mean, covariance, of_task = gaussians[label]
            normal = torch.randn(samples, len(mean), generator=rng, dtype=torch.float64).numpy()  # type: ignore[call-overload]
            drawn.append((0.9 + 0.1 * (of_task + 1) / (task + 1)) * mean + normal @ np.linalg.cholesky(covariance).T)
            labels += [label] * samples  # type: ignore[operator]
        order = torch.randperm(len(labels), generator=rng).numpy()
        points, targets = np.concatenate(drawn)[order], np.array(labels)[order]
        rate = QUICK["rate"] * (1 + np.cos(np.pi * epoch / epochs)) / 2  # type: ignore[operator]
        for start in range(0, len(points), samples):  # type: ignore[call-overload]
            x, y = points[start : start + samples], targets[start : start + samples]  # type: ignore[operator]
            logits = x @ weight.T + bias
            lengths = np.stack([np.linalg.norm(logits[:, a:b], axis=1) for a, b in zip(starts, ends, strict=True)], 1)
            size = lengths.mean(1, keepdims=True) + 1e-7  # as released
            p = np.exp(logits / (tau * size))
            p /= p.sum(1, keepdims=True)
            p[np.arange(len(y)), y] -= 1
            # the length's own derivative: d size / d l = l / (T * the length of l's task)
            own = np.concatenate(
                [logits[:, a:b] / lengths[:, [i]] for i, (a, b) in enumerate(zip(starts, ends, strict=True))], 1
            )
            slope = (p - (p * logits).sum(1, keepdims=True) / size * own / len(ends)) / (tau * size) / len(y)
            for value, gradient, v in ((weight, slope.T @ x, velocity[0]), (bias, slope.sum(0), velocity[1])):
                v *= 0.9
                v += gradient + 5e-4 * value
                value -= rate * v
    return weight, bias


def test_three_tasks_are_aligned_as_by_hand(
    sequence_of: Callable[..., SequencePlan], learner_of: Callable[..., Learner]
) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        sequence = sequence_of(**of_slca())
        run_sequence(sequence, evaluate=False)
        learner = learner_of(**of_slca())
        gaussians: dict[int, Any] = {}
        ends = [2, 6, 11]
        for task in range(3):
            state = stored(sequence, task + 1)
            kept = state.method["0:slca"]
            features, labels = head_inputs(learner, task, state)
            for label in np.unique(labels):
                of_label = features[labels == label]
                gaussians[int(label)] = (of_label.mean(0), np.cov(of_label.T) + 1e-4 * np.eye(32), task)
            assert sorted(map(int, kept["gaussians"])) == sorted(gaussians) == list(range(ends[task]))
            for label, (mean, covariance, of_task) in gaussians.items():
                found = kept["gaussians"][str(label)]
                np.testing.assert_allclose(found["mean_d"].numpy(), mean, atol=1e-9)
                np.testing.assert_allclose(found["covariance_dd"].numpy(), covariance, atol=1e-9)
                assert found["task"] == of_task
            weight, bias = kept["unaligned"]["0"].numpy().copy(), kept["unaligned"]["1"].numpy().copy()
            if task:
                aligned_by_hand(weight, bias, gaussians, ends[: task + 1], task)
                assert np.abs(weight - kept["unaligned"]["0"].numpy()).max() > 0.01
            np.testing.assert_allclose(state.weights["classifier.weight"][: ends[task]].numpy(), weight, atol=1e-7)
            np.testing.assert_allclose(state.weights["classifier.bias"][: ends[task]].numpy(), bias, atol=1e-7)
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_next_task_goes_on_from_the_head_before_the_alignment(sequence_of: Callable[..., SequencePlan]) -> None:
    """Old labels do not compete and their units do not decay: training leaves them as they were, aligned or not."""
    sequence = sequence_of(**of_slca())
    run_sequence(sequence, evaluate=False)
    second, third = (stored(sequence, n).method["0:slca"]["unaligned"]["0"] for n in (2, 3))
    assert torch.equal(third[:6], second)
    assert not torch.equal(stored(sequence, 2).weights["classifier.weight"][:6], second)


def test_without_epochs_nothing_is_aligned(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(**of_slca(epochs=0))
    run_sequence(sequence, evaluate=False)
    state = stored(sequence, 3)
    assert torch.equal(state.weights["classifier.weight"], state.method["0:slca"]["unaligned"]["0"])


def test_a_label_that_comes_again_has_the_gaussian_of_its_newest_task(
    sequence_of: Callable[..., SequencePlan], tmp_path: Path
) -> None:
    labels = {"first": ["a", "b"], "second": ["b", "c"]}
    for task, own in labels.items():
        folder = tmp_path / "data" / "TC" / task
        folder.mkdir(parents=True)
        rows = [{"label": own[r % 2], "sentence": f"{task} text {r}"} for r in range(20)]
        for split, content in (("train", rows[6:]), ("test", rows[:6]), ("labels", own)):
            (folder / f"{split}.json").write_text(json.dumps(content))
    stream = {"name": "own", "folder": str(tmp_path / "data"), "tasks": list(labels)}
    sequence = sequence_of(**{**of_slca(), "stream": stream})
    run_sequence(sequence, evaluate=False)
    before, after = (stored(sequence, n).method["0:slca"]["gaussians"] for n in (1, 2))
    assert {name: found["task"] for name, found in after.items()} == {"0": 0, "1": 1, "2": 1}
    assert torch.equal(before["0"]["mean_d"], after["0"]["mean_d"])
    assert not torch.equal(before["1"]["mean_d"], after["1"]["mean_d"])
