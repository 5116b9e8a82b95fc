"""The answers that a score was computed from: which are right, which are wrong, and what was answered instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NoReturn

from rich import box
from rich.console import Console
from rich.table import Table

from orchestrator.errors import UserError
from orchestrator.evaluation.scorer import Scorer
from orchestrator.evaluation.scorers import SCORERS
from orchestrator.planning.experiment import Experiment
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.storage.places import folder_at
from orchestrator.store.checkpoints import Store
from orchestrator.store.predictions import DamagedPredictions, load_predictions
from orchestrator.store.scores import score_file
from streams.names import unknown_name


def read_predictions(
    experiment: Experiment,
    task: str,
    after: str | None = None,
    method: str | None = None,
    seed: int | None = None,
    stream: str | None = None,
) -> dict[str, Any]:
    """The predictions on a task of one state, as a JSON object with the score. Raises UserError for what is not there.

    `after` is the number of tasks that the state has seen (0: the initial model) or the name of the last of them; without
    it, all tasks. Without method, seed or stream, the first one of the experiment that has the task is taken.
    """
    sequence = _find_sequence(experiment, task, method, seed, stream)
    tasks_seen = _tasks_seen(sequence, after)
    key = sequence.score_keys[tasks_seen][sequence.tasks.index(task)]
    store = Store(folder_at(experiment.config.out))
    score = store.load_score(key)
    state = f"{sequence.method.label}, seed {sequence.seed}, {_after(sequence, tasks_seen)}"
    evaluate = f"orchestrator evaluate {experiment.config.name} --out {experiment.config.out}"
    # asked first: the score is written last, so without it the predictions are of a scoring that was stopped
    if score is None:
        _refuse_missing(sequence, tasks_seen, task, state, evaluate)
    again = f"compute both again with `rm {score_file(store.root, key)} && {evaluate}`"
    try:
        predictions = load_predictions(store.root, key)
    except DamagedPredictions as error:
        raise UserError(f"{error}; {again}") from error
    if predictions is None:
        raise UserError(f"no predictions were kept beside the score on {task!r}: {state} (an older version); {again}")
    return {
        "experiment": experiment.config.name,
        "method": sequence.method.label,
        "seed": sequence.seed,
        "stream": sequence.stream.name,
        "task": task,
        "tasks_seen": tasks_seen,
        "after": _after(sequence, tasks_seen),
        "score": score["score"],
        **_named_scorer(sequence, task),
        "correct": score["correct"],
        "n": score["n"],
        "predictions": [asdict(prediction) for prediction in predictions],
    }


def _named_scorer(sequence: SequencePlan, task: str) -> dict[str, str]:
    scorer = sequence.scorers[sequence.tasks.index(task)]
    return {"scorer": scorer, "unit": SCORERS[scorer].unit}


def _refuse_missing(sequence: SequencePlan, tasks_seen: int, task: str, state: str, evaluate: str) -> NoReturn:
    """Say how to get a score that is not there."""
    if sequence.tasks.index(task) not in sequence.tasks_to_score(tasks_seen):
        raise UserError(f"no score on {task!r} was asked for: {state}; the same run with evaluation.rows: all has it")
    raise UserError(f"no score on {task!r} yet: {state}; compute what is missing with `{evaluate}`")


def _find_sequence(
    experiment: Experiment, task: str, method: str | None, seed: int | None, stream: str | None
) -> SequencePlan:
    """The first sequence with these properties. What narrows the choice is checked one by one, so that one is to blame."""
    sequences: Sequence[SequencePlan] = experiment.sequences
    if method is not None:
        sequences = _narrow(sequences, "method", method, lambda sequence: [sequence.method.label])
    if seed is not None:
        sequences = _narrow(sequences, "seed", str(seed), lambda sequence: [str(sequence.seed)])
    if stream is not None:
        sequences = _narrow(sequences, "stream", stream, lambda sequence: [sequence.stream.name])
    return _narrow(sequences, "task", task, lambda sequence: sequence.tasks)[0]


def _narrow(
    sequences: Sequence[SequencePlan], what: str, wanted: str, names_of: Callable[[SequencePlan], Sequence[str]]
) -> list[SequencePlan]:
    """The sequences that have a name. Raises UserError where none has."""
    found = []
    known: dict[str, None] = {}
    for sequence in sequences:
        names = names_of(sequence)
        known.update(dict.fromkeys(names))
        if wanted in names:
            found.append(sequence)
    if not found:
        raise UserError(f"--{what}: {unknown_name(what, wanted, list(known))}")
    return found


def _tasks_seen(sequence: SequencePlan, after: str | None) -> int:
    """How many tasks the wanted state has seen. Raises UserError."""
    num_tasks = len(sequence.tasks)
    if after is None:
        return num_tasks
    if after in sequence.tasks:
        return sequence.tasks.index(after) + 1
    if not after.isdecimal():
        raise UserError(f"--after: {unknown_name('task', after, sequence.tasks)}, or 0 to {num_tasks}")
    if int(after) > num_tasks:
        raise UserError(f"--after: {after} is more than the {num_tasks} tasks of the sequence; 0 is before training")
    return int(after)


def _after(sequence: SequencePlan, tasks_seen: int) -> str:
    if tasks_seen == 0:
        return "before training"
    return f"after {sequence.tasks[tasks_seen - 1]}"


def select_predictions(predictions: Sequence[dict[str, Any]], wrong: bool, limit: int | None) -> list[dict[str, Any]]:
    """The first `limit` predictions (None: all), of those that are wrong where only these are wanted."""
    selected = []
    for prediction in predictions:
        if not (wrong and prediction["correct"]):
            selected.append(prediction)
    return selected[:limit]


def print_predictions(result: dict[str, Any], selected: Sequence[dict[str, Any]], console: Console) -> None:
    """The selected predictions of one score as a table."""
    scorer = SCORERS[result["scorer"]]
    title = (
        f"{result['method']}, seed {result['seed']}: {result['task']} {result['after']}, "
        f"{result['score']:.{scorer.digits}f} {result['unit']} ({_count(result, scorer)})"
    )
    # on a line of its own: as the table's title it would be broken to the width of short answers
    console.print(title, style="bold", highlight=False, soft_wrap=True)
    # a model that generates its answers does not choose among options
    has_options = any(prediction["option"] is not None for prediction in result["predictions"])
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("example", "row"):
        table.add_column(name, justify="right")
    if not scorer.counts_right:
        table.add_column("score", justify="right")
    if scorer.reads_answers:
        table.add_column("", no_wrap=True)
    table.add_column("target", overflow="fold")
    if scorer.reads_answers:
        table.add_column("prediction", overflow="fold")
    if has_options:
        table.add_column("among options", overflow="fold")
    for prediction in selected:
        table.add_row(*_cells(prediction, scorer, has_options))
    console.print(table)


def _count(result: dict[str, Any], scorer: Scorer) -> str:
    """How many answers are right; where nothing is answered, how many examples there are."""
    if not scorer.reads_answers:
        return f"{result['n']} examples"
    return f"{result['correct']} of {result['n']} correct"


def _cells(prediction: dict[str, Any], scorer: Scorer, has_options: bool) -> list[str]:
    cells = [str(prediction["example"]), str(prediction["row"])]
    if not scorer.counts_right:
        cells.append(scorer.shown(prediction["score"]))
    if scorer.reads_answers:
        cells.append({True: "✓", False: "✗"}[prediction["correct"]])
    # quoted where an answer has line ends or spaces at its ends, which a table would hide
    cells.append(_visible(prediction["target"]))
    if scorer.reads_answers:
        cells.append(_visible(prediction["prediction"]))
    if has_options:
        cells.append(_visible(prediction["option"]))
    return cells


def _visible(text: str) -> str:
    if text and text == text.strip() and text.isprintable():
        return text
    return repr(text)


def next_command(result: dict[str, Any], num_shown: int, wrong: bool, out: str) -> str:
    """The command that shows the wrong answers alone, or all that there are, or the state before."""
    command = f"orchestrator predictions {result['experiment']} --task {result['task']} --after {result['tasks_seen']}"
    command += f" --method '{result['method']}' --seed {result['seed']} --out {out}"
    num_wrong = result["n"] - result["correct"]
    if not wrong and 0 < num_wrong < result["n"]:
        return f"the {num_wrong} wrong ones: {command} --wrong"
    num_matching = result["n"]
    if wrong:
        num_matching = num_wrong
        command += " --wrong"
    if num_shown < num_matching:
        return f"all {num_matching}: {command} --limit {num_matching}"
    return f"the whole accuracy matrix: orchestrator report {result['experiment']} --matrices --out {out}"
