"""GraftLLM's checkpoints, read by numpy from their files: what is stored, scored and trained on, and how large it is."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from methods import Context, method_spec
from methods.merging.graftllm import Graftllm, GraftllmSettings
from orchestrator.evaluation.scores import score_task
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import State, Store
from orchestrator.store.predictions import load_predictions
from orchestrator.store.states.state_files import METHOD_TENSORS_FILE, RESUME_FILE, WEIGHTS_FILE
from orchestrator.training.learner import Learner
from orchestrator.training.sequence import run_sequence
from orchestrator.training.task import train_task
from tests.conftest import FAMILIES

TWO_TASKS = {"first": 2, "max_train": 16}
# one number a kind: none could stand for another unnoticed; groups of 24, into which no direction divides
SETTINGS: dict[str, Any] = {
    "attention": 0.25,
    "ffn": 0.4,
    "embedding": 0.2,
    "bits": [[0.2, 8], [0.4, 4], [0.4, 2]],
    "group": 24,
}
MakeLearner = Callable[..., Learner]
MakeSequence = Callable[..., SequencePlan]


def grafted(**settings: Any) -> dict[str, Any]:
    return {"name": "grafted", "plugins": [{"name": "graftllm", **SETTINGS, **settings}]}


def folder(sequence: SequencePlan, tasks_seen: int) -> Path:
    return Store(Path(sequence.out)).path(sequence.keys[tasks_seen])


def stored(sequence: SequencePlan, tasks_seen: int) -> State:
    return Store(Path(sequence.out)).load(sequence.keys[tasks_seen], resume_state=True)


def initial_weights(learner_of: MakeLearner, model: str) -> dict[str, Tensor]:
    learner = learner_of(out="initial", model=model, stream=TWO_TASKS)
    return {name: weight.detach().clone() for name, weight in learner.weights().items()}


def kind(name: str, weight: Tensor) -> str:
    """How a weight of the three families is to be stored."""
    if weight.ndim < 2 or name.startswith("classifier"):
        return "whole"
    if any(part in name for part in ("shared", "embed", "lm_head", "relative_attention_bias")):
        return "embedding"
    return "attention" if "attention" in name.lower() or "attn" in name else "ffn"


def rank(name: str, weight: Tensor) -> int:
    return round(SETTINGS[kind(name, weight)] * min(weight.shape))


def bands(number: int) -> list[tuple[int, int, int]]:
    """(first direction, first of the next band, bits), for shares of a fifth, two and two."""
    first, second = -(-number // 5), -(-3 * number // 5)
    return [(0, first, 8), (first, second, 4), (second, number, 2)]


def read_matrix(parts: Mapping[str, Tensor], shape: torch.Size) -> np.ndarray:
    """sum_k s_k u_k v_k^T, each byte of the file taken apart."""
    singular = parts["singular"].double().numpy()
    size = sum(shape)
    stored_bytes = parts["codes"].tolist()
    change = np.zeros(shape)
    position = 0
    for start, end, width in bands(len(singular)):
        in_a_byte = 8 // width
        count = (end - start) * size
        codes = []
        for byte in stored_bytes[position : position + -(-count // in_a_byte)]:
            codes += [byte // 2 ** (width * place) % 2**width for place in range(in_a_byte)]
        position += -(-count // in_a_byte)
        for k in range(start, end):
            row = np.array(codes[(k - start) * size : (k - start + 1) * size], dtype=float)
            for i in range(size):
                lowest, step = parts["grid"][k, i // SETTINGS["group"]].tolist()
                row[i] = lowest + row[i] * step
            change += singular[k] * np.outer(row[: shape[0]], row[shape[0] :])
    assert position == len(stored_bytes)
    return change


def read_entries(parts: Mapping[str, Tensor], shape: torch.Size) -> np.ndarray:
    change = np.zeros(math.prod(shape))
    kept = [i for i in range(len(change)) if parts["kept"][i // 8].item() >> (i % 8) & 1]
    change[kept] = parts["values"].double().numpy()
    return change.reshape(shape)


def read(sequence: SequencePlan, tasks_seen: int, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that a checkpoint's file stands for."""
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for path, tensor in load_file(folder(sequence, tasks_seen) / WEIGHTS_FILE).items():
        name, _, part = path.partition("/")
        parts[name][part] = tensor
    found = {}
    for name, weight in base.items():
        if kind(name, weight) == "whole":
            found[name] = parts[name][""]
            continue
        read_change = read_entries if kind(name, weight) == "embedding" else read_matrix
        change = read_change(parts[name], weight.shape)
        found[name] = torch.from_numpy(weight.double().numpy() + change).float()
    assert parts.keys() == found.keys()
    return found


def relative_error(found: Mapping[str, Tensor], exact: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> float:
    """||theta - found|| / ||theta - theta_0|| over all but the task head, which has no theta_0."""
    names = [name for name in base if not name.startswith("classifier")]
    lost = torch.cat([(exact[name].double() - found[name].double()).flatten() for name in names])
    changed = torch.cat([(exact[name].double() - base[name].double()).flatten() for name in names])
    return float(lost.norm() / changed.norm())


def assert_close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name].detach(), weight, rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("model", FAMILIES)
def test_every_task_goes_on_from_what_is_stored(model: str, sequence_of: MakeSequence, learner_of: MakeLearner) -> None:
    """Plain training from what the first file stands for gives what the second one is a compression of, from theta_0 on."""
    base = initial_weights(learner_of, model)
    sequence = sequence_of("grafted", model=model, stream=TWO_TASKS, methods=[grafted()])
    run_sequence(sequence, evaluate=False)
    plain = learner_of(out="plain", model=model, stream=TWO_TASKS)
    for task in range(2):
        exact = {name: w.detach().clone() for name, w in train_task(plain, task, lambda event: None).weights.items()}
        found = read(sequence, task + 1, base)
        told = stored(sequence, task + 1).history["diagnostics"]
        expected = relative_error(found, exact, base)
        assert told["graftllm/relative_error"] == pytest.approx(expected, rel=1e-4)
        assert 0.02 < expected < 0.95
        for each in ("attention", "ffn", "embedding"):
            of_kind = {name: w for name, w in base.items() if kind(name, w) == each}
            expected = relative_error(found, exact, of_kind)
            assert told[f"graftllm/relative_error_{each}"] == pytest.approx(expected, rel=1e-4)
        for name, weight in exact.items():
            if kind(name, weight) == "whole":
                assert torch.equal(found[name], weight), name
        plain.load(State(found, {}, {}), task + 1)


@pytest.mark.parametrize("model", FAMILIES)
def test_it_keeps_what_numpys_decomposition_keeps(
    model: str, sequence_of: MakeSequence, learner_of: MakeLearner
) -> None:
    base = initial_weights(learner_of, model)
    plain = sequence_of("plain", model=model, stream=TWO_TASKS)
    sequence = sequence_of("grafted", model=model, stream=TWO_TASKS, methods=[grafted(bits=[[1.0, 32]])])
    for each in (plain, sequence):
        run_sequence(each, evaluate=False, until=1)
    parts = load_file(folder(sequence, 1) / WEIGHTS_FILE)
    num_matrices = 0
    for name, exact in stored(plain, 1).weights.items():
        delta = (exact.double() - base[name].double()).numpy()
        if kind(name, exact) == "embedding":
            # in float32, in which many entries have moved equally far: of those the first ones stay
            moved = (exact - base[name]).flatten().numpy()
            largest = np.argsort(-np.abs(moved), kind="stable")[: round(0.2 * delta.size)]
            expected = np.zeros(delta.size)
            expected[largest] = moved[largest]
            found = read_entries({p: parts[f"{name}/{p}"] for p in ("kept", "values")}, exact.shape)
            np.testing.assert_allclose(found, expected.reshape(exact.shape), rtol=2**-8)
        elif kind(name, exact) != "whole":
            u, s, vh = np.linalg.svd(delta, full_matrices=False)
            kept = rank(name, exact)
            vectors = parts[f"{name}/codes"].view(torch.float32).view(kept, -1).double().numpy()
            values = parts[f"{name}/singular"].double().numpy()
            np.testing.assert_allclose(values, s[:kept], rtol=1e-3)
            found = vectors[:, : len(exact)].T * values @ vectors[:, len(exact) :]
            # the best approximation of its rank: no other one is as near
            lost = np.linalg.norm(delta - u[:, :kept] * s[:kept] @ vh[:kept])
            assert np.linalg.norm(delta - found) == pytest.approx(lost, rel=1e-4)
            num_matrices += 1
    assert num_matrices > 10


@pytest.mark.parametrize("model", FAMILIES)
def test_a_checkpoint_is_as_small_as_the_formula_says(
    model: str, sequence_of: MakeSequence, learner_of: MakeLearner
) -> None:
    base = initial_weights(learner_of, model)
    plain = sequence_of("plain", model=model, stream=TWO_TASKS)
    sequence = sequence_of("grafted", model=model, stream=TWO_TASKS, methods=[grafted()])
    for each in (plain, sequence):
        run_sequence(each, evaluate=False, until=1)
    size = 0
    for name, weight in base.items():
        if kind(name, weight) == "whole":
            size += 4 * weight.numel()
        elif kind(name, weight) == "embedding":
            size += -(-weight.numel() // 8) + 2 * round(0.2 * weight.numel())
        else:
            kept, entries = rank(name, weight), sum(weight.shape)
            size += sum(math.ceil((end - start) * entries * width / 8) for start, end, width in bands(kept))
            size += kept * (4 * math.ceil(entries / 24) + 4)
    told = stored(sequence, 1).history["diagnostics"]
    whole = sum(4 * weight.numel() for weight in base.values())
    assert told["graftllm/stored_bytes"] == size
    assert told["graftllm/stored_share"] == pytest.approx(size / whole)
    assert size < 0.2 * whole
    # beside the tensors there is what the file says of them, about 120 bytes each
    on_disk = (folder(sequence, 1) / WEIGHTS_FILE).stat().st_size
    assert 0 < on_disk - size < 200 * len(stored(sequence, 1).weights)
    assert (folder(plain, 1) / WEIGHTS_FILE).stat().st_size > whole
    # and nothing else holds weights
    assert stored(sequence, 1).method == {}
    assert (folder(sequence, 1) / METHOD_TENSORS_FILE).stat().st_size < 100
    assert not (folder(sequence, 1) / RESUME_FILE).exists()


@pytest.mark.parametrize("model", FAMILIES)
def test_what_is_scored_is_what_is_stored(model: str, sequence_of: MakeSequence, learner_of: MakeLearner) -> None:
    """In the process that stored it, in one that read it, and in a plain model that is given it."""
    changes: dict[str, Any] = {
        "model": model,
        "stream": {**TWO_TASKS, "max_train": 64, "max_test": 40},
        "training": {"lr": 1e-2},
    }
    base = initial_weights(learner_of, model)
    sequence = sequence_of("grafted", **changes, methods=[grafted()])
    view = run_sequence(sequence, until=1)
    found = read(sequence, 1, base)
    reader = learner_of(out="reader", **changes, methods=[grafted()])
    reader.load(stored(sequence, 1), 1)
    assert_close(reader.weights(), found)
    writer = learner_of(out="writer", **changes, methods=[grafted()])
    train_task(writer, 0, lambda event: None)
    for name, weight in writer.weights().items():
        assert torch.equal(weight, reader.weights()[name]), name
    plain = learner_of(out="plain", **changes)
    plain.load(State(found, {}, {}), 1)
    for task_id, task in enumerate(plain.stream.tasks):
        expected = score_task(plain.scored_model(), task, "test", 100)
        assert view.matrix()[1, task_id] == pytest.approx(expected.score)
        # the answers too: a decoder has none right so soon
        answers = load_predictions(Path(sequence.out), sequence.score_keys[1][task_id])
        assert answers == list(expected.predictions)


def test_a_model_is_given_the_weights_without_the_orchestrator(
    sequence_of: MakeSequence, learner_of: MakeLearner
) -> None:
    """As README says."""
    sequence = sequence_of("grafted", model="tiny-bert", stream=TWO_TASKS, methods=["ft+graftllm"])
    run_sequence(sequence, evaluate=False)
    model = learner_of(out="initial", model="tiny-bert", stream=TWO_TASKS).family.module
    (part,) = method_spec("ft+graftllm").plugins
    form: Any = part.build(Context(0, model_weights=lambda name: dict(model.named_parameters())))
    weights = form.unpacked(load_file(folder(sequence, 2) / WEIGHTS_FILE))
    expected = learner_of(out="reader", model="tiny-bert", stream=TWO_TASKS, methods=["ft+graftllm"])
    expected.load(stored(sequence, 2), 2)
    assert not model.load_state_dict(weights, strict=False).unexpected_keys
    for name, weight in expected.weights().items():
        assert torch.equal(dict(model.named_parameters())[name], weight), name


def test_stopped_after_each_task_it_is_as_never_stopped(sequence_of: MakeSequence) -> None:
    three = {"first": 3, "max_train": 16}
    whole = sequence_of("whole", stream=three, methods=["ft+graftllm"])
    stopped = sequence_of("stopped", stream=three, methods=["ft+graftllm"])
    expected = run_sequence(whole).matrix()
    for until in (1, 2, 3):
        found = run_sequence(stopped, until=until).matrix()
    np.testing.assert_array_equal(found, expected)
    for tasks_seen in (1, 2, 3):
        one, other = stored(whole, tasks_seen).weights, stored(stopped, tasks_seen).weights
        assert one.keys() == other.keys()
        assert any(name.endswith("/codes") for name in one)
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_what_would_not_become_smaller_is_stored_as_it_is(sequence_of: MakeSequence) -> None:
    """All directions in all their bits are more than the matrix; and training is plain, bit for bit."""
    nothing_lost = {"attention": 1.0, "ffn": 1.0, "embedding": 1.0, "bits": [[1.0, 32]]}
    plain = sequence_of("plain", stream=TWO_TASKS)
    sequence = sequence_of("grafted", stream=TWO_TASKS, methods=[grafted(**nothing_lost)])
    for each in (plain, sequence):
        run_sequence(each, evaluate=False)
    one, other = stored(plain, 2).weights, stored(sequence, 2)
    assert one.keys() == other.weights.keys()
    assert all(torch.equal(tensor, other.weights[name]) for name, tensor in one.items())
    told = other.history["diagnostics"]
    assert told["graftllm/relative_error"] == 0 and told["graftllm/stored_share"] == 1


def test_energy_cuts_what_is_no_attention(sequence_of: MakeSequence, learner_of: MakeLearner) -> None:
    base = initial_weights(learner_of, "tiny-t5")
    plain = sequence_of("plain", stream=TWO_TASKS)
    sequence = sequence_of("grafted", stream=TWO_TASKS, methods=[grafted(energy=0.7)])
    for each in (plain, sequence):
        run_sequence(each, evaluate=False, until=1)
    parts = stored(sequence, 1).weights
    fewer = 0
    for name, exact in stored(plain, 1).weights.items():
        if f"{name}/singular" not in parts:
            continue
        squares = np.linalg.svd((exact.double() - base[name].double()).numpy(), compute_uv=False) ** 2
        expected = rank(name, exact)
        if kind(name, exact) == "ffn":
            least = next(k for k in range(1, 33) if squares[:k].sum() >= 0.7 * squares.sum())
            fewer += least < expected
            expected = min(expected, least)
        assert len(parts[f"{name}/singular"]) == expected, name
    assert fewer


def test_a_matrix_that_nothing_moves_costs_nothing(learner_of: MakeLearner) -> None:
    learner = learner_of(methods=[grafted()], training={"weight_decay": 0.0})
    frozen = "encoder.block.0.layer.0.SelfAttention.q.weight"
    dict(learner.family.module.named_parameters())[frozen].register_hook(torch.zeros_like)
    before = learner.weights()[frozen].detach().clone()
    state = train_task(learner, 0, lambda event: None)
    assert [len(state.weights[f"{frozen}/{part}"]) for part in ("codes", "grid", "singular")] == [0, 0, 0]
    assert torch.equal(learner.weights()[frozen], before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention": 0}, "attention"),
        ({"ffn": 1.1}, "ffn"),
        ({"embedding": -0.1}, "embedding"),
        ({"energy": 0}, "energy"),
        ({"group": 0}, "group"),
        ({"bits": [[1.0, 3]]}, "bits: 3 bits: expected one of 2, 4, 8, 16, 32"),
        ({"bits": [[0.5, 8], [0.4, 4]]}, "bits: the shares add up to 0.9: expected 1"),
        ({"bits": [[1.5, 8], [-0.5, 4]]}, "bits: a share of 1.5: expected more than 0, and 1 at most"),
        ({"bits": []}, "bits: the shares add up to 0: expected 1"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        method_spec(grafted(**settings))
    (error,) = caught.value.errors()  # type: ignore[attr-defined]
    assert f"graftllm.{message}" in error["msg"]
    assert "\n" not in error["msg"]


def test_where_nothing_of_the_model_trains_it_is_refused(learner_of: MakeLearner) -> None:
    """As under an adapter of a user's own, whose card says nothing."""
    learner = learner_of(model="tiny-bert")
    model = learner.family.module
    base = {name: w.detach() for name, w in model.named_parameters() if not name.startswith("classifier")}
    part = Graftllm(GraftllmSettings(), Context(0, model_weights=lambda name: base))
    batch = next(learner.batches(learner.examples(0)))
    part.check_model(model, batch)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("classifier") or name.endswith("bias"))
    with pytest.raises(ValueError, match="no matrix of the model itself trains, so there is no change to compress"):
        part.check_model(model, batch)
