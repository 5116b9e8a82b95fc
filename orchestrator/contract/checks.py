"""The checks: what a method must do so that its checkpoints can be resumed, shared and compared."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from methods import METHODS, Settings, TuningMethod
from methods.spec import missing_for
from orchestrator.config.running import DuringConfig, EvaluationConfig
from orchestrator.contract.subject import TASKS, Subject, exact_arithmetic, stored_state, stored_weights
from orchestrator.errors import Preempted
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import Step, TaskStarted
from orchestrator.store.records.event import Event
from orchestrator.training.sequence import run_sequence

# A thousandth of one step at the checks' rate of 1e-3: a mask or a choice that differs moves weights by more, rounding in
# float64 by less.
CLOSE = 1e-6

# After each step of the task that follows the stop, and after none of those before
OFTEN = DuringConfig(every=1, examples=2)
RESUMED = "resumed after two, and scored amid the third"
STOPPED_INSIDE = "stopped after the first step of each task, and resumed there"


class ContractViolation(Exception):
    """The part does not do what every method must; the message says what is wrong and what to do."""


class NotApplicable(Exception):
    """The check has nothing to check in this part; the message says why."""


def require(condition: bool, message: str) -> None:
    """Raises ContractViolation where the condition does not hold."""
    if not condition:
        raise ContractViolation(message)


def check_described(subject: Subject) -> None:
    """Its card and docstring say what it is."""
    require(bool(subject.card.summary), "the card has no summary: card = Card(summary=...)")
    # inherited from Method, a docstring describes the seam
    require(
        bool(vars(subject.type).get("__doc__")), "the class has no docstring: give the formula and where it is from"
    )
    if subject.is_tuning:
        require(bool(subject.card.memory), "the card does not say what it keeps beside the model: Card(memory=...)")


def check_search_space(subject: Subject) -> None:
    """What a search tries is allowed by the settings."""
    settings = subject.type.Settings
    card = subject.card
    for name, tried in card.space.items():
        require(name in settings.model_fields, f"the card's space has {name!r}, which is no setting")
        require(
            name != card.kept_share, f"the card's space has {name!r}, the size of a memory, which the scenario fixes"
        )
        values = tried
        # of a range, both ends
        if isinstance(tried, Mapping):
            values = (tried["low"], tried["high"])
        for value in values:
            _check_tried(settings, name, value)
    for name in (*card.space_only_with, card.kept_share):
        require(not name or name in settings.model_fields, f"the card speaks of {name!r}, which is no setting")
    require(
        bool(subject.card.space) or not settings.model_fields,
        "it has settings, but a search would try none of them: Card(space=...)",
    )


def _check_tried(settings: type[Settings], name: str, value: Any) -> None:
    """A value that a search tries is an amount, and the settings take it as it is."""
    require(
        isinstance(value, int | float) and not isinstance(value, bool),
        f"the card's space tries {name} = {value!r}, which is no amount: a search would choose another method under its name",
    )
    try:
        taken = getattr(settings.model_validate({name: value}), name)
    except ValueError as error:
        raise ContractViolation(f"the card's space tries {name} = {value!r}, which is refused") from error
    require(taken == value, f"the card's space tries {name} = {value!r}, which the settings read as {taken!r}")


def check_trains(subject: Subject) -> None:
    """It trains: finite weights that move, under the same names before and after."""
    sequence, notes = subject.observed_run
    trains = not subject.is_tuning or _trains_by_gradient(subject)
    for task_id in range(TASKS):
        for name, weight in stored_weights(sequence, task_id + 1).items():
            require(bool(torch.isfinite(weight).all()), f"{name} is not finite after task {task_id}")
        if not trains:
            # Such a method learns in its state alone, and is not called before a task
            one = stored_weights(sequence, 1)
            require_equal(one, stored_weights(sequence, task_id + 1), "weights", f"task {task_id} is over")
            continue
        before = notes.before_task[task_id].keys()
        after = notes.after_task[task_id].keys()
        if before != after:
            raise ContractViolation(f"`weights` names others after task {task_id}: {sorted(before ^ after)}")
        moved = notes.moved(task_id)
        require(bool(moved), f"training task {task_id} moved 0 weights")
        if subject.model == "tiny-bert":
            require("classifier.weight" in moved, "a task head trains under every tuning method")


def _trains_by_gradient(subject: Subject) -> bool:
    return issubclass(subject.type, TuningMethod) and subject.type.trains_by_gradient


def check_resumes(subject: Subject) -> None:
    """Stopped after a task and resumed, it gives the same bit for bit. Scoring changes nothing, amid training neither."""
    with exact_arithmetic():
        whole, _ = subject.observed_run
        stopped = subject.sequence("stopped", subject.spec())
        # before the last task: by then a part has kept what it keeps, and the last one depends on it
        run_sequence(stopped, evaluate=False, until=2)
        run_sequence(stopped.model_copy(update={"evaluation": EvaluationConfig(rows="seen", during=OFTEN)}))
    require(stopped.keys == whole.keys, "cache fields differ between two runs of the same settings")
    for tasks_seen in range(1, TASKS + 1):
        one = stored_state(whole, tasks_seen)
        other = stored_state(stopped, tasks_seen)
        require_equal(one.weights, other.weights, f"weights after {tasks_seen} tasks", RESUMED)
        require_equal(one.method, other.method, f"state after {tasks_seen} tasks", RESUMED)


def check_goes_on_inside(subject: Subject) -> None:
    """Stopped inside each task and resumed there, it gives the same bit for bit, and makes no step twice."""
    if subject.is_tuning and not _trains_by_gradient(subject):
        raise NotApplicable("it makes no steps")
    with exact_arithmetic():
        whole, _ = subject.observed_run
        stopped = subject.sequence("stopped inside", subject.spec())
        made = _train_with_stops(stopped)
    for task_id in range(TASKS):
        steps = Store(Path(stopped.out)).history(stopped.keys[task_id + 1])["steps"]
        # a step that was made twice would have a later time in the history than in the report
        require(
            [step["time"] for step in steps] == [step.time for step in made if step.task_id == task_id],
            f"the state inside task {task_id} could not be gone on from: its attributes are not put back",
        )
    for tasks_seen in range(1, TASKS + 1):
        one = stored_state(whole, tasks_seen)
        other = stored_state(stopped, tasks_seen)
        require_equal(one.weights, other.weights, f"weights after {tasks_seen} tasks", STOPPED_INSIDE)
        require_equal(one.method, other.method, f"state after {tasks_seen} tasks", STOPPED_INSIDE)


def _train_with_stops(sequence: SequencePlan) -> list[Step]:
    """Train a sequence, leaving each task after its first step and coming back. Returns the steps as they were reported."""
    made: list[Step] = []
    just_begun: list[int] = []

    def note(event: Event) -> None:
        if isinstance(event, Step):
            made.append(event)
        elif isinstance(event, TaskStarted):
            # told once: a task that is gone on with is none that begins
            just_begun.append(event.task_id)

    def leave() -> bool:
        was_begun = bool(just_begun)
        just_begun.clear()
        return was_begun

    for _ in range(TASKS):
        with contextlib.suppress(Preempted):
            run_sequence(sequence, note, evaluate=False, leave=leave)
    run_sequence(sequence, note, evaluate=False)
    return made


def require_equal(one: Any, other: Any, what: str, when: str) -> None:
    """Raises ContractViolation where two nested states differ in a bit."""
    if isinstance(one, Mapping):
        require(one.keys() == other.keys(), f"{what}: {sorted(one.keys() ^ other.keys())} are in one run only, {when}")
        for key in one:
            require_equal(one[key], other[key], f"{what}: {key}", when)
    elif isinstance(one, Tensor):
        require(
            torch.equal(one, other),
            f"{what} differs when {when}: keep what it depends on in `state_dict`, and put back in `after_scoring` what "
            "`before_scoring` sets; amid a task only attributes are kept",
        )
    else:
        require(one == other, f"{what} differs when {when}: {one!r} and {other!r}")


def check_state(subject: Subject) -> None:
    """Its state is tensors and plain values."""
    _, notes = subject.observed_run
    require(bool(notes.states), "its state was never asked for: does the class call super().__init__?")
    for state in notes.states:
        _require_plain(state, "state_dict()")


def _require_plain(value: Any, path: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            require(isinstance(key, str), f"{path} has the key {key!r}, which is no string")
            _require_plain(item, f"{path}[{key!r}]")
    elif isinstance(value, list):
        for item in value:
            _require_plain(item, f"{path}[...]")
    else:
        plain = value is None or isinstance(value, Tensor | int | float | str | bool)
        require(
            plain, f"{path} is a {type(value).__name__}; a checkpoint holds tensors, numbers, strings, lists, dicts"
        )


def check_says_what_it_modifies(subject: Subject) -> None:
    """It says whether `after_task` changes weights: `schedule: infinite` goes on from before it."""
    if subject.card.per_task_weights:
        raise NotApplicable("each task has weights of its own")
    _, notes = subject.observed_run
    modified: list[str] = []
    for task_id in range(TASKS):
        modified += notes.modified_afterwards(task_id)
    if modified:
        require(
            bool(subject.card.modifies_weights_after_task),
            f"`after_task` changes {modified[0]} and others: say how in Card(modifies_weights_after_task=...)",
        )
    else:
        require(
            not subject.card.modifies_weights_after_task,
            "the card says modifies_weights_after_task, but `after_task` left all trained weights alone",
        )


def check_strength_zero(subject: Subject) -> None:
    """At strength zero it is plain training, bit for bit; and at full strength it is not."""
    zero_settings = subject.card.strength_zero
    if subject.is_tuning:
        raise NotApplicable("a tuning method has no strength")
    if zero_settings is None:
        raise NotApplicable("the card does not say where its strength is zero: Card(strength_zero=...)")
    with exact_arithmetic():
        plain = subject.trained("plain", subject.plain())
        zero = subject.trained("zero", subject.spec(**zero_settings))
        strong = subject.trained("strong", subject.spec(**{**zero_settings, **subject.card.strong}))
    # else the run at strength zero took the plain run's checkpoints, and nothing would be proven
    require(
        set(plain.keys[2:]).isdisjoint(zero.keys[2:]),
        "from the second task on, `cache_fields` must give its settings: it would be given plain training's checkpoints",
    )
    at_zero = stored_weights(zero, 2)
    for name, weight in stored_weights(plain, 2).items():
        same = torch.equal(weight, at_zero[name])
        require(same, f"with {dict(zero_settings)}, {name} differs from plain training")
    differs = False
    # of what is scored there may be more than what plain training stores, such as layers beneath adapters
    for name, weight in stored_weights(strong, 2).items():
        differs |= name not in at_zero or not torch.equal(weight, at_zero[name])
    require(differs, "with the card's `strong` settings it changes nothing in two tasks")


def check_accumulation(subject: Subject) -> None:
    """However a global batch is cut into micro-batches, it trains the same up to rounding."""
    settings: dict[str, Any] = {}
    # an adapter's dropout draws for each micro-batch anew
    if "dropout" in subject.type.Settings.model_fields:
        settings["dropout"] = 0.0
    with exact_arithmetic(torch.float64):
        whole = subject.trained("uncut", subject.spec(**settings), micro_batch=8)
        cut = subject.trained("cut", subject.spec(**settings), micro_batch=2)
    for tasks_seen in range(1, TASKS + 1):
        _require_close(whole, cut, tasks_seen)


def _require_close(whole: SequencePlan, cut: SequencePlan, tasks_seen: int) -> None:
    other = stored_weights(cut, tasks_seen)
    for name, weight in stored_weights(whole, tasks_seen).items():
        # softmax cancels it, so its gradient is rounding, which Adam blows up without effect
        if name.endswith("key.bias"):
            continue
        require(
            torch.allclose(weight, other[name], rtol=CLOSE, atol=CLOSE),
            f"after task {tasks_seen - 1}, {name} depends on the size of the micro-batches: weigh what is added to the loss "
            "by batch.loss_weight, and change gradients in before_optimizer_step alone",
        )


def check_on_lora(subject: Subject) -> None:
    """On LoRA too, strength zero is plain training."""
    reason = missing_for(subject.card, METHODS["lora"].card)
    if reason:
        raise NotApplicable(reason)
    check_strength_zero(replace(subject, tuning="lora", folder=subject.folder / "lora"))


Check = Callable[[Subject], None]
CHECKS: dict[str, Check] = {
    "described": check_described,
    "search space": check_search_space,
    "trains": check_trains,
    "resumes": check_resumes,
    "goes on inside": check_goes_on_inside,
    "plain state": check_state,
    "says what it modifies": check_says_what_it_modifies,
    "strength zero": check_strength_zero,
    "strength zero on LoRA": check_on_lora,
    "accumulation": check_accumulation,
}
