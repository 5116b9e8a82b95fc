"""Searches for tests: their configuration, trials that are trained, and trials whose scores are written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.config.experiment import RunConfig
from orchestrator.planning.experiment import Experiment
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.search.choice import evaluation_sequences, freeze, frozen_config
from orchestrator.search.definition import Search, prepare
from orchestrator.search.results import save_tuning_results
from orchestrator.search.trial_store import TrialStore
from orchestrator.search.trials import Trial, TrialResult
from orchestrator.store.events import CheckpointSaved, ScoreComputed, SequenceFailed, SequenceFinished, SequenceStarted
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.store.records.search_events import RungDecided
from orchestrator.store.view import View, read_view
from orchestrator.training.sequence import run_sequence
from tests.conftest import small_config

TUNING: dict[str, Any] = {"name": "embedded-tuning", "first": 3, "max_train": 24, "max_dev": 12}
EVALUATION: dict[str, Any] = {"name": "embedded", "first": 3, "max_train": 24, "max_test": 10}

Matrix = Sequence[Sequence[float]]


def search_config(
    out: Path,
    methods: Any = ("ft", "ft+migu"),
    evaluated: Any = None,
    training: dict[str, Any] | None = None,
    scorer: str | None = None,
    **search: Any,
) -> RunConfig:
    """A small search: two trials a method on three tasks, unless said otherwise."""
    space = {"training.lr": [1e-3, 3e-3], "migu.ratio": [0.3, 0.6]}
    scored = {"scorer": scorer} if scorer else {}
    section = {"streams": [{**TUNING, **scored}], "trials": 2, "seeds": [1], "space": space, **search}
    changes: dict[str, Any] = {"methods": list(methods), "search": section, "training": training or {}}
    return small_config(out, **changes, streams=evaluated or [{**EVALUATION, **scored}])


def open_search(config: RunConfig) -> tuple[Search, TrialStore]:
    """A search that was checked, and its trials as the journal tells them."""
    search = prepare(config, gpu=False)
    return search, TrialStore(search.folder, search.settings, search.planner, search.method_searches)


def train_trials(trial_store: TrialStore, count: int | None = None) -> list[Trial]:
    """Train trials in this process until there are no more, or `count` of them."""
    done: list[Trial] = []
    while count is None or len(done) < count:
        trial = trial_store.start_next()
        if trial is None:
            break
        for sequence in trial.sequences:
            run_sequence(sequence)
        trial_store.record_result(trial)
        done.append(trial)
    return done


def steady(score: float, num_tasks: int = 3) -> list[list[float]]:
    """An accuracy matrix in which every score is the same: AA is that score, and nothing is forgotten."""
    return np.full((num_tasks + 1, num_tasks), score).tolist()


def write_scores(
    sequence: SequencePlan,
    matrix: Matrix,
    options: Matrix | None = None,
    failure: str = "",
    seconds: float = 2.0,
    reused: Sequence[int] = (),
) -> None:
    """Write a sequence's journal by hand.

    `matrix[tasks_seen][task_id]` are scores in %; one with fewer rows is that of a sequence that went no further. Each task
    took so many `seconds`, unless it was `reused`.
    """
    journal = Journal(journal_folder(sequence.out, sequence.id))
    journal.append(
        SequenceStarted(
            id=sequence.id,
            tasks=sequence.tasks,
            sequence=sequence.model_dump(mode="json"),
            data=[],
            workers=1,
            device="cpu",
            versions={},
            git_commit=None,
            machine="",
        )
    )
    for tasks_seen, scores in enumerate(matrix):
        if tasks_seen:
            _write_checkpoint(journal, sequence, tasks_seen - 1, seconds, tasks_seen - 1 in reused)
        for task_id, score in enumerate(scores):
            journal.append(
                ScoreComputed(
                    tasks_seen=tasks_seen,
                    task_id=task_id,
                    task=sequence.tasks[task_id],
                    key="",
                    score=score,
                    score_options=options[tasks_seen][task_id] if options else None,
                    correct=0,
                    n=10,
                    seconds=0.0,
                )
            )
    if failure:
        journal.append(SequenceFailed(reason=failure))
    elif len(matrix) == len(sequence.tasks) + 1:
        journal.append(SequenceFinished())


def _write_checkpoint(journal: Journal, sequence: SequencePlan, task_id: int, seconds: float, reused: bool) -> None:
    journal.append(
        CheckpointSaved(
            task_id=task_id,
            task=sequence.tasks[task_id],
            key=sequence.keys[task_id + 1],
            path="",
            bytes=0,
            seconds=seconds,
            usage={},
            reused=reused,
            diagnostics={},
        )
    )


def view_of(sequence: SequencePlan, matrix: Matrix, **facts: Any) -> View:
    """What a journal with these scores says."""
    write_scores(sequence, matrix, **facts)
    return read_view(sequence.out, sequence.id)


def score_trials(trial_store: TrialStore, scores: Mapping[str, Sequence[float | str | Matrix]]) -> None:
    """Give every trial that comes the outcome at its number: a steady score, a matrix, or why it failed."""
    while trial := trial_store.start_next():
        outcome = scores[trial.method][trial.number]
        score_trial(trial_store, trial, *([outcome] * len(trial.sequences)))


def mark_stopped(trial_store: TrialStore, trial: Trial, tasks: int) -> None:
    """Have the scheduler stop a trial after so many tasks."""
    decision = RungDecided(**trial.identity, tasks=tasks, score=0.0, goes_on=False)
    trial_store.halving.replay(decision)


def score_trial(trial_store: TrialStore, trial: Trial, *outcomes: float | str | Matrix) -> TrialResult:
    """Write a trial's journals, an outcome for each sequence, and record how it ended.

    A matrix with fewer rows is that of a trial which the scheduler stopped.
    """
    for sequence, outcome in zip(trial.sequences, outcomes, strict=True):
        if isinstance(outcome, str):
            write_scores(sequence, steady(0.0)[:1], failure=outcome)
        elif isinstance(outcome, int | float):
            write_scores(sequence, steady(outcome, len(sequence.tasks)))
        else:
            write_scores(sequence, outcome)
            if len(outcome) <= len(sequence.tasks):
                mark_stopped(trial_store, trial, len(outcome) - 1)
    trial_store.record_result(trial)
    return trial_store.results[trial.key]


def freeze_and_save(search: Search, trial_store: TrialStore) -> dict[str, Any]:
    """End the tuning phase; gives the choice."""
    chosen = freeze(search, trial_store)
    save_tuning_results(search.folder, search.description(), trial_store, chosen)
    return chosen


def open_evaluation(search: Search, chosen: dict[str, Any]) -> Experiment:
    """The evaluation phase's experiment, saved and not begun."""
    frozen = frozen_config(search.config, chosen)
    experiment = Experiment(frozen, tuple(evaluation_sequences(search, frozen, chosen)))
    experiment.save()
    return experiment


def write_tasks(folder: Path, tasks: dict[str, list[tuple[str, str]]]) -> Path:
    """A folder of tasks with two labels and train splits alone; gives the folder."""
    for name, examples in tasks.items():
        task_folder = folder / "SC" / name
        task_folder.mkdir(parents=True)
        (task_folder / "labels.json").write_text('["good", "bad"]')
        (task_folder / "train.json").write_text(_examples_json(examples))
    return folder


def write_test_split(folder: Path, name: str, examples: list[tuple[str, str]]) -> None:
    """Give a task of `write_tasks` a test split."""
    (folder / "SC" / name / "test.json").write_text(_examples_json(examples))


def _examples_json(examples: list[tuple[str, str]]) -> str:
    return json.dumps([{"sentence": sentence, "label": label} for sentence, label in examples])


def sentences(word: str, count: int = 30) -> list[tuple[str, str]]:
    """Examples that no other word has, with labels in turn."""
    return [(f"{word} number {i} is what we saw", ("good", "bad")[i % 2]) for i in range(count)]


def folder_config(out: Path, folder: Path, tuning: list[str], evaluation: list[str], **search: Any) -> RunConfig:
    """A search of fine-tuning on the tasks of a folder."""

    def stream(name: str, tasks: list[str]) -> dict[str, Any]:
        return {"name": name, "folder": str(folder), "tasks": tasks, "max_train": 16, "max_test": 5}

    section = {"streams": [stream("here", tuning)], **search}
    return search_config(out, ["ft"], [stream("there", evaluation)], **section)
