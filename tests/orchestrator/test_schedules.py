"""Learning rates by hand, and the two states of an annealed task: which is scored, and which the next task starts from."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from orchestrator.config.training import TrainingConfig, outer_factor
from orchestrator.evaluation.scores import score_task
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import State, Store
from orchestrator.store.events import CheckpointSaved, Event, Step
from orchestrator.training.batches import global_batches
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from orchestrator.training.schedules import make_schedule, phases
from orchestrator.training.sequence import run_sequence, score_state
from tests.orchestrator.test_loop import folder_with, trained

ANNEALED = {"schedule": "infinite", "warmup": 0.1}


def rates(training: TrainingConfig, steps: int, task_id: int, tasks: int = 5) -> list[float]:
    """What the optimizer is given in every step of a task."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=training.lr)
    schedule = make_schedule(optimizer, training, steps, task_id, tasks)
    found = []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


def test_the_four_phases_by_hand() -> None:
    """20 steps: warm-up until 2, cooldown until 6, constant until 16; cosines of 45, 90 and 135 degrees, fourth roots of 0.1."""
    training = TrainingConfig.model_validate(
        {"lr": 1.0, "schedule": "infinite", "warmup": 0.1, "infinite": {"cooldown": 0.3}}
    )
    cooling = [0.868198051534, 0.55, 0.231801948466, 0.1]
    annealing = [0.0562341325190, 0.0316227766017, 0.0177827941004, 0.01]
    assert rates(training, 20, 0) == pytest.approx([0.5, 1.0, *cooling, *[0.1] * 10, *annealing], rel=1e-10)
    assert rates(training, 20, 1) == pytest.approx([*[0.1] * 16, *annealing], rel=1e-10)
    own = training.model_copy(
        update={
            "lr": 0.02,
            "infinite": training.infinite.model_copy(update={"anneal": 0.5, "constant": 0.5, "final": 0.125}),
        }
    )
    assert rates(own, 4, 3) == pytest.approx([0.01, 0.01, 0.005, 0.0025], rel=1e-10)


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, (0, 1, 1)), (2, (0, 1, 1)), (3, (0, 1, 2)), (5, (0, 1, 4)), (100, (0, 15, 80))]
)
def test_phases_are_whole_steps(steps: int, expected: tuple[int, int, int]) -> None:
    """A single step is not annealed: otherwise nothing would be learnt from it."""
    assert phases(TrainingConfig(schedule="infinite"), steps) == expected


def test_a_group_of_parameters_has_its_own_height() -> None:
    training = TrainingConfig.model_validate({"lr": 1.0, "schedule": "infinite"})
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 3.0)]
    schedule = make_schedule(torch.optim.AdamW(groups), training, 10, task_id=1, tasks=2)
    assert schedule.get_last_lr() == pytest.approx([0.1, 0.3])


@pytest.mark.parametrize(
    ("outer", "expected"),
    [
        ("constant", [1, 1, 1, 1]),
        ("rsqrt", [1, 0.707106781187, 0.577350269190, 0.5]),
        ("cosine", [1, 0.853553390593, 0.5, 0.146446609407]),
    ],
)
def test_the_rate_over_tasks(outer: str, expected: list[float], sequence_of: Callable[..., SequencePlan]) -> None:
    training = TrainingConfig.model_validate({"lr": 2.0, "outer": outer, "schedule": "linear"})
    assert [outer_factor(training, t, 4) for t in range(4)] == pytest.approx(expected, abs=1e-11)
    assert rates(training, 2, 3, 4) == pytest.approx([2.0 * expected[3], expected[3]], abs=1e-11)
    view = run_sequence(sequence_of(training={"outer": outer}, stream={"first": 4, "max_train": 8}), evaluate=False)
    assert [view.by_task[t].steps[1].lr for t in range(4)] == pytest.approx([1e-3 * g for g in expected], rel=1e-9)


def test_keys_from_before_these_settings_stay(sequence_of: Callable[..., SequencePlan]) -> None:
    """The digests are those that the version before these settings computed: its checkpoints are found again."""
    assert sequence_of().keys == (
        "0c1b972a15fe81b3015def5af54429ca", "929e7e7abc550cc00a90604095e20486", "78e2edad7a5825a6df8c41211b069dc4",
        "b67c8ce3837db86ee5520b8b57f05b50", "5284b9343348e1cdebb9e5e898228634", "b534832ce1308cf9904de3d29089c2c2",
    )  # fmt: skip
    other = sequence_of(
        training={"schedule": "cosine", "warmup": 0.1, "epochs_per_task": {"requests": 2}}, methods=["replay"]
    )
    assert (other.keys[1], other.keys[5]) == ("7e93e4d75ef46feb96023cb6cee05f63", "1a478d0ffbd6554c007002371a0083d8")
    unused = {"infinite": {"anneal": 0.9}, "outer": "constant", "budget": None}
    assert sequence_of(training=unused).keys == sequence_of().keys


def test_what_these_settings_influence_is_in_the_key(sequence_of: Callable[..., SequencePlan]) -> None:
    base = sequence_of().keys
    changes: list[dict[str, Any]] = [
        {"schedule": "infinite"},
        {"schedule": "infinite", "infinite": {"anneal": 0.9}},
        {"budget": {"steps": 3}},
        {"budget": {"tokens": 3}},
        {"budget": {"flops": 3}},
    ]
    keys = [sequence_of(training=change).keys for change in changes]
    assert len({base[1], *(k[1] for k in keys)}) == len(changes) + 1
    epochs = sequence_of(training={"budget": {"steps": 3}, "epochs": 4}).keys
    assert epochs == keys[2], "a budget takes the place of epochs"
    falling = [sequence_of(training={"outer": outer}).keys for outer in ("rsqrt", "cosine")]
    assert all(k[1] == base[1] for k in falling), "the first task is trained alike"
    assert len({base[2], *(k[2] for k in falling)}) == 3


def stored(sequence: SequencePlan, row: int) -> State:
    return Store(Path(sequence.out)).load(sequence.keys[row], resume_state=True)


def equal(a: Any, b: Any) -> bool:
    """Of nested tensors by name."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    return a.keys() == b.keys() and all(equal(value, b[name]) for name, value in a.items())


EWC = {"name": "held", "tuning": "full", "plugins": [{"name": "ewc", "strength": 1e3}]}
CASES = [
    ("ft", "tiny-t5"),
    (EWC, "tiny-t5"),
    ("lora", "tiny-t5"),
    ("ft", "tiny-bert"),
    ("coso", "tiny-t5"),
    ("moelora", "tiny-t5"),
]


@pytest.mark.parametrize(("method", "model"), CASES, ids=lambda case: str(case)[:20])
def test_stopping_and_resuming_equals_going_on(
    method: Any, model: str, sequence_of: Callable[..., SequencePlan]
) -> None:
    few = {"model": model, "methods": [method], "stream": {"first": 3, "max_test": 4}, "training": ANNEALED}
    whole, stopped = sequence_of("whole", **few), sequence_of("stopped", **few)
    run_sequence(whole, evaluate=False)

    class Stop(BaseException):
        """As a signal would come."""

    def stop(event: Event) -> None:
        if isinstance(event, Step) and (event.task_id, event.step) in ((1, 3), (2, 2)):
            raise Stop

    for _ in range(2):
        with pytest.raises(Stop):
            run_sequence(stopped, stop, evaluate=False)
    run_sequence(stopped)  # scoring every state in between changes nothing
    for row in (1, 2, 3):
        a, b = stored(whole, row), stored(stopped, row)
        assert a.resume_state
        assert b.resume_state
        assert equal(a.weights, b.weights)
        assert equal(a.resume_state.weights, b.resume_state.weights)
        assert equal(a.resume_state.optimizer_state, b.resume_state.optimizer_state)
        assert a.resume_state.optimizer_state
        assert a.weights.keys() == a.resume_state.weights.keys()
        assert not equal(a.weights, a.resume_state.weights), "nothing was annealed"


def test_the_annealed_weights_are_scored_and_anchors_are_of_the_trunk(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(methods=[EWC], stream={"first": 2}, training={**ANNEALED, "lr": 0.1})
    run_sequence(sequence, evaluate=False)
    state = stored(sequence, 1)
    assert state.resume_state
    assert equal(state.method["0:ewc"]["anchor"], dict(state.resume_state.weights))
    score_state(sequence, 1)
    learner = Learner(sequence, sequence.open_stream(), Parallel())
    learner.load(Store(Path(sequence.out)).load(sequence.keys[1]), 1)
    assert equal({n: w.detach() for n, w in learner.weights().items()}, state.weights)
    assert learner.state.is_after(1, "score")
    assert not learner.state.is_after(1, "train")
    task = learner.stream.tasks[0]
    expected = score_task(learner.scored_model(), task, "test", 10)
    cell = Store(Path(sequence.out)).load_score(sequence.score_keys[1][0])
    assert cell
    assert cell["correct"] == expected.correct


def test_the_next_task_goes_on_from_before_the_annealing(sequence_of: Callable[..., SequencePlan]) -> None:
    """Of two steps a task one is not annealed. So the trunk after task 2 is one step of AdamW, worked here by its formula,
    from the trunk after task 1, with that step's moments and the constant rate.
    """
    sequence = sequence_of(stream={"first": 2}, training={"schedule": "infinite", "budget": {"steps": 2}})
    view = run_sequence(sequence, evaluate=False)
    first, second = stored(sequence, 1), stored(sequence, 2)
    assert first.resume_state
    assert second.resume_state
    assert [view.by_task[1].steps[n].lr for n in (1, 2)] == pytest.approx([1e-4, 1e-5])

    def first_step(start: State, weights: Any, moments: Any) -> dict[str, Tensor]:
        learner = Learner(sequence, sequence.open_stream(), Parallel())
        learner.load(start, 1)
        learner.family.load_weights(weights)
        features = learner.features(1)
        chosen = [features[i] for i in next(global_batches(len(features), 8, 7, 1, 0))]
        summed, _ = learner.family.forward(learner.family.module, learner.family.collate(chosen))
        (summed / sum(len(f["target"]) for f in chosen)).backward()
        parameters = dict(learner.family.module.named_parameters())
        norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in parameters.values() if p.grad is not None))
        found = {}
        for name, p in parameters.items():
            assert p.grad is not None
            g, w = p.grad.double() * min(1.0, 1.0 / (norm + 1e-6)), p.detach().double()
            old = moments.get(name, {"step": torch.zeros(()), "exp_avg": 0 * g, "exp_avg_sq": 0 * g})
            t = float(old["step"]) + 1
            m, v = 0.9 * old["exp_avg"] + 0.1 * g, 0.999 * old["exp_avg_sq"] + 0.001 * g**2
            decayed = w * (1 - 1e-4 * 0.01) if w.ndim > 1 else w
            found[name] = decayed - 1e-4 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        return found

    def distance(expected: dict[str, Tensor]) -> float:
        assert second.resume_state
        return max(float((w - expected[n]).abs().max()) for n, w in second.resume_state.weights.items())

    assert {float(m["step"]) for m in first.resume_state.optimizer_state.values()} == {1.0}
    assert {float(m["step"]) for m in second.resume_state.optimizer_state.values()} == {2.0}
    assert distance(first_step(first, first.resume_state.weights, first.resume_state.optimizer_state)) < 2e-6
    assert distance(first_step(first, first.resume_state.weights, {})) > 5e-5, "the moments would not matter"
    assert distance(first_step(first, first.weights, first.resume_state.optimizer_state)) > 5e-6, (
        "the annealing would not matter"
    )


def test_adding_a_task_with_new_labels_trains_only_that_task(
    sequence_of: Callable[..., SequencePlan], tmp_path: Path
) -> None:
    """The head of the longer stream has more rows, and so have the optimizer's moments."""
    changes = {"model": "tiny-bert", "training": ANNEALED}
    short = sequence_of(stream=folder_with(tmp_path, ["first", "second"]), **changes)
    longer = sequence_of(stream=folder_with(tmp_path, ["first", "second", "third"]), **changes)
    at_once = sequence_of("elsewhere", stream=folder_with(tmp_path, ["first", "second", "third"]), **changes)
    assert trained(short) == ["first", "second"]
    assert trained(longer) == ["third"]
    assert trained(at_once) == ["first", "second", "third"]
    ends = [stored(s, 3) for s in (longer, at_once)]
    assert ends[0].resume_state
    assert ends[1].resume_state
    assert len(ends[0].resume_state.optimizer_state["classifier.weight"]["exp_avg"]) == 6
    for name, w in ends[0].weights.items():
        torch.testing.assert_close(w, ends[1].weights[name], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(
            ends[0].resume_state.optimizer_state[name]["exp_avg"],
            ends[1].resume_state.optimizer_state[name]["exp_avg"],
            rtol=1e-5,
            atol=1e-7,
        )


def test_a_checkpoint_that_breaks_at_once_is_made_again(sequence_of: Callable[..., SequencePlan]) -> None:
    """The model is then past the first task, and has to begin anew."""
    whole, broken = (sequence_of(out, stream={"first": 2}, training=ANNEALED) for out in ("whole", "broken"))
    run_sequence(whole, evaluate=False)
    store, seen = Store(Path(broken.out)), []

    def spoil(event: Event) -> None:
        seen.append(event.name)
        if isinstance(event, CheckpointSaved) and event.task_id == 0:
            (store.path(broken.keys[1]) / "resume.safetensors").write_bytes(b"broken")

    run_sequence(broken, spoil)
    assert "checkpoint_corrupt" in seen
    for row in (1, 2):
        assert equal(stored(whole, row).weights, stored(broken, row).weights)
