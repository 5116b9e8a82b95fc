"""ConPET: what each batch is made of, that draws depend on nothing else, and how many steps that makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from methods import Context, Stack, method_spec
from methods.base import Example
from methods.full import Full, FullSettings
from methods.replay.conpet import Conpet, ConpetSettings, new_examples
from methods.replay.memory import kept
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.training import task as training
from orchestrator.training.learner import Learner
from orchestrator.training.sequence import run_sequence

TASKS: list[list[Example]] = [[{"source": (task, i)} for i in range(n)] for task, n in enumerate((400, 20, 60, 50))]


def conpet(seed: int = 3, **settings: Any) -> Conpet:
    return Conpet(ConpetSettings(**settings), Context(seed, examples=lambda i: TASKS[i]))


def filled(method: Conpet, task_id: int, step: int, size: int = 8) -> list[tuple[int, int]]:
    """(task, number) of what a batch holds beside the new examples, after checking that these are there, first."""
    new = TASKS[task_id][: method.num_new_examples(task_id, size)]
    batch = method.compose_batch(task_id, step, new)
    assert len(batch) == size
    assert list(batch[: len(new)]) == new
    return [e["source"] for e in batch[len(new) :]]


@pytest.mark.parametrize(
    ("size", "rho", "new"),
    [(8, 1.0, 4), (8, 3.0, 6), (8, 2.0, 5), (7, 1.0, 3), (8, 0.5, 2), (2, 0.1, 1), (1, 1.0, 1), (6, 0.2, 1), (64, 1e9, 63)],
)  # fmt: skip
def test_new_examples_of_a_batch(size: int, rho: float, new: int) -> None:
    """size x rho / (rho + 1), rounded down as the released code does, but at least one."""
    assert new_examples(size, rho) == new


def test_a_batch_is_new_examples_and_old_ones() -> None:
    method = conpet(rho=3.0)
    assert [len(filled(method, 2, step)) for step in range(1, 9)] == [2] * 8
    assert {task for step in range(1, 60) for task, _ in filled(method, 2, step)} == {0, 1}
    assert {task for step in range(1, 60) for task, _ in filled(method, 1, step)} == {0}
    assert filled(method, 0, 1) == []


def test_tasks_come_equally_often_whatever_their_size_and_so_do_their_examples() -> None:
    method = conpet(rho=1.0)
    drawn = [found for step in range(1, 501) for found in filled(method, 3, step, 24)]  # 6000
    by_task = Counter(task for task, _ in drawn)
    assert all(abs(by_task[task] - 2000) < 150 for task in range(3)), by_task  # 4 standard deviations
    small = Counter(number for task, number in drawn if task == 1)
    assert set(small) == set(range(20))
    assert all(abs(n - 100) < 40 for n in small.values()), small


def test_only_what_is_kept_comes_back() -> None:
    method = conpet(fraction=0.1)
    drawn = {found for step in range(1, 401) for found in filled(method, 3, step)}
    assert drawn == {e["source"] for i in range(3) for e in kept(3, i, TASKS[i], 0.1)}
    assert len(drawn) == 40 + 2 + 6


def test_draws_depend_on_seed_task_and_step_alone() -> None:
    method = conpet()
    forth = [filled(method, 2, step) for step in range(1, 20)]
    other = conpet()
    assert [filled(other, 2, step) for step in range(19, 0, -1)][::-1] == forth
    assert len({tuple(batch) for batch in forth}) == 19
    assert filled(conpet(seed=4), 2, 1) != forth[0]
    second, third = ([found for step in range(1, 101) for found in filled(conpet(), task, step)] for task in (2, 3))
    assert sum(a == b for a, b in zip(second, third, strict=True)) < 20, "4 of 400 by chance"


def test_nothing_kept_is_plain_training() -> None:
    method = conpet(fraction=0.0)
    assert method.num_new_examples(2, 8) == 8
    assert method.compose_batch(2, 1, TASKS[2][:8]) is not None
    assert list(method.compose_batch(2, 1, TASKS[2][:8])) == TASKS[2][:8]


def test_two_parts_that_fill_make_one_batch() -> None:
    """The first one listed fills what the smaller share of new examples leaves."""
    wide, narrow = conpet(rho=3.0), conpet(rho=1.0)
    stack = Stack(Full(FullSettings(), Context(0)), [("a", wide), ("b", narrow)], "full")
    assert stack.num_new_examples(2, 8) == 4
    assert len(stack.compose_batch(2, 1, TASKS[2][:4])) == 8


def test_an_epoch_goes_once_over_the_new_examples(
    sequence_of: Callable[..., SequencePlan], learner_of: Callable[..., Learner], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Example]] = []
    make_micro_batches = training.make_micro_batches

    def note(learner: Learner, batch: Any) -> Any:
        seen.append(list(batch))
        return make_micro_batches(learner, batch)

    monkeypatch.setattr(training, "make_micro_batches", note)
    changes: dict[str, Any] = {"methods": ["conpet"], "stream": {"first": 3, "max_train": 24}}
    sequence = sequence_of(**changes)
    view = run_sequence(sequence, evaluate=False)
    assert [len(view.by_task[t].steps) for t in range(3)] == [3, 6, 6]  # 24 examples: 8 or 4 a step
    assert [view.by_task[t].total_steps for t in range(3)] == [3, 6, 6]
    features = [learner_of(**changes).features(t) for t in range(3)]
    for task, old in ((1, features[0]), (2, features[0] + features[1])):
        batches = seen[3 + 6 * (task - 1) : 3 + 6 * task]
        new = [example for batch in batches for example in batch[:4]]
        assert sorted(map(str, new)) == sorted(map(str, features[task]))
        assert all(len(batch) == 8 and all(example in old for example in batch[4:]) for batch in batches)


def test_the_first_task_is_shared_and_the_preset_has_the_papers_rank(sequence_of: Callable[..., SequencePlan]) -> None:
    lora = method_spec("conpet").tuning
    assert (lora.name, lora.settings["r"]) == ("lora", 4)
    plain = sequence_of(methods=[{"tuning": {"name": "lora", "r": 4, "alpha": 16.0}}])
    conpet = sequence_of(methods=["conpet"])
    assert conpet.keys[1] == plain.keys[1]
    assert conpet.keys[2] != plain.keys[2]


@pytest.mark.parametrize("wrong", [{"rho": 0.0}, {"rho": float("inf")}, {"fraction": 1.5}, {"batch_limit": 100}])
def test_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        method_spec({"plugins": [{"name": "conpet", **wrong}]})
