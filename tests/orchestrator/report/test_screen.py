"""What a user sees while an experiment runs."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console
from rich.progress_bar import ProgressBar

from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.report.screen import Screen, progress_cells
from orchestrator.store.events import (
    ScoreComputed,
    SequenceFailed,
    SequenceFinished,
    SequenceStarted,
    Step,
    TaskStarted,
)
from orchestrator.store.versions import library_versions, release
from orchestrator.store.view import View
from orchestrator.training.sequence import run_sequence


def cells_of(sequence: SequencePlan, view: View) -> tuple[str, float | None, str, str, str]:
    label, bar, loss, speed, scores = progress_cells(sequence, view)
    assert isinstance(bar, ProgressBar)
    return str(label), bar.completed, str(loss), str(speed), str(scores)


def test_a_sequence_from_waiting_to_finished(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(stream={"first": 2})
    view = View(sequence.id)
    assert cells_of(sequence, view) == ("waiting", 0, "", "", "")
    shown = []

    def follow(event: object) -> None:
        view.add(event)
        shown.append(cells_of(sequence, view))

    run_sequence(sequence, follow)
    first, second = sequence.tasks
    labels = list(dict.fromkeys(label for label, *_ in shown))
    assert labels == ["running", f"1/2 {first}", "1/2", f"2/2 {second}", "2/2", "finished"]
    in_first_task = [cells for cells in shown if cells[0] == f"1/2 {first}"]
    # a sample of the machine's load may come between two steps, and changes nothing
    completed = list(dict.fromkeys(completed for _, completed, *_ in in_first_task))
    assert completed == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert all(float(loss) > 0 for _, completed, loss, *_ in in_first_task if completed)
    assert shown[-1][1] == 2
    last_scores = [f"{score:.0f}" for score in view.matrix()[-1]]
    assert shown[-1][4].split() == last_scores


def test_no_number_is_cut_in_a_narrow_terminal(sequence_of: Callable[..., SequencePlan]) -> None:
    """A long name and task, a loss, a rate and a score of each of five tasks, in 80 columns."""
    sequence = sequence_of(methods=[{"name": "a-method-of-a-long-name", "tuning": "full"}])
    console = Console(width=80, force_terminal=True, record=True, color_system=None)
    screen = Screen([sequence], console)
    view = View(sequence.id)
    view.add(TaskStarted(task_id=1, task=sequence.tasks[1], steps=4, reused=False))
    view.add(Step(task_id=1, step=1, loss=12.3456, lr=1e-3, grad_norm=1.0, tokens_per_s=98765.4))
    for task_id, task in enumerate(sequence.tasks):
        view.add(
            ScoreComputed(
                tasks_seen=1, task_id=task_id, task=task, key=task, score=100.0 - task_id, score_options=None,
                correct=1, n=1, seconds=0.1,
            )
        )  # fmt: skip
    screen.views = [view]
    console.print(screen.table())
    text = console.export_text()
    for part in ("loss", "tokens/s", "last scores", "12.3456", "98,765", "100 99 98 97 96"):
        assert part in text, text


def test_of_many_sequences_those_are_drawn_that_fit_and_are_not_finished(
    sequence_of: Callable[..., SequencePlan],
) -> None:
    """In ten lines four: those that run before those that failed, these before those that wait; in their order."""
    plan = sequence_of(stream={"first": 2})
    sequences = [plan.model_copy(update={"seed": number}) for number in range(12)]
    console = Console(width=100, height=10, force_terminal=True, record=True, color_system=None)
    screen = Screen(sequences, console)
    started = SequenceStarted(
        id="s",
        tasks=plan.tasks,
        sequence={},
        data=[],
        workers=1,
        device="cpu",
        versions={},
        git_commit=None,
        machine="m",
    )
    for number, ends in ((0, [SequenceFinished()]), (2, [SequenceFailed(reason="x")]), (9, []), (11, [])):
        for event in (started, *ends):
            screen.views[number].add(event)
    console.print(screen.table())
    lines = console.export_text().splitlines()
    assert [line.split()[4] for line in lines[1:-1]] == ["1", "2", "9", "11"]
    assert lines[-1].strip() == "and 8 more: 1 finished, 7 waiting"
    assert screen.live
    assert screen.live.refresh_per_second == 4
    many = Screen(sequences * 10, console).live
    assert many
    assert many.refresh_per_second == 1


def test_without_a_terminal_a_line_for_each_finished_task(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(stream={"first": 2})
    view = run_sequence(sequence, evaluate=False)
    console = Console(width=100, force_terminal=False)
    with console.capture() as captured:
        with Screen([sequence], console) as screen:
            screen.show([View(sequence.id)])
            screen.say("training")
            screen.show([view])
            screen.show([view])
    phase, *lines = captured.get().splitlines()
    assert phase.endswith(" training")
    assert len(lines) == 2
    for number, (line, task) in enumerate(zip(lines, sequence.tasks, strict=True), start=1):
        assert f"ft, seed 7: task {number}/2 {task} trained in" in line


def test_a_dumb_terminal_gets_lines_without_control_characters(
    sequence_of: Callable[..., SequencePlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    written = StringIO()
    console = Console(width=100, force_terminal=True, color_system=None, file=written)
    with Screen([sequence_of()], console) as screen:
        screen.say("training")
    assert written.getvalue() == "00:00 training\n"


def test_what_was_done_before_the_command_is_found_and_not_trained(sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(stream={"first": 2})
    halfway = run_sequence(sequence, evaluate=False, until=1)
    whole = run_sequence(sequence, evaluate=False)
    console = Console(width=100, force_terminal=False)
    with console.capture() as captured:
        with Screen([sequence], console) as screen:
            screen.show([halfway])
            screen.show([whole])
    first, second = captured.get().splitlines()
    assert first.endswith("task 1/2 reviews found in the store")
    assert "task 2/2 headlines trained in " in second


@pytest.mark.parametrize("terminal", [True, False])
def test_a_reuse_with_another_library_is_said_once(
    terminal: bool, sequence_of: Callable[..., SequencePlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = sequence_of(stream={"first": 2})
    older = {**library_versions(), "torch": "1.9.1"}
    with monkeypatch.context() as before:
        before.setattr("orchestrator.training.record.library_versions", lambda: older)
        run_sequence(sequence, evaluate=False, until=1)
    # a run of another name finds the state, and its journal says what trained it
    other = sequence_of(methods=[{"preset": "ft", "name": "other"}], stream={"first": 2})
    view = run_sequence(other, evaluate=False)
    console = Console(width=100, force_terminal=terminal)
    with console.capture() as captured:
        with Screen([other], console) as screen:
            screen.show([view])
            screen.show([view])
    line = f"checkpoints of torch 1.9 are reused with {release(library_versions()['torch'])}"
    assert captured.get().count(line) == 1
    first, second = [view.by_task[task_id].checkpoint for task_id in (0, 1)]
    assert first is not None and first.versions["torch"] == "1.9.1"
    assert second is not None and second.versions == library_versions()


def test_scores_that_are_no_percentage_have_three_digits(sequence_of: Callable[..., SequencePlan]) -> None:
    scorers = {"reviews": "bits-per-byte"}
    sequence = sequence_of(stream={"first": 2, "scorer": scorers})
    view = View(sequence.id)
    for task_id, number in enumerate((1.23456, 99.6)):
        view.add(
            ScoreComputed(
                tasks_seen=1, task_id=task_id, task="t", key="t", score=number, score_options=None, correct=1, n=1,
                seconds=0.1,
            )
        )  # fmt: skip
    assert cells_of(sequence, view)[-1] == "1.23 100"
