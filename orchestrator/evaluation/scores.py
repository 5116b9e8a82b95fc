"""Cells: the score of one state on one task, computed once and cached by what it depends on."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F

from orchestrator.evaluation.scorers import is_correct
from orchestrator.models.family import Family, Feature
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.training.learner import Learner
from streams import Task


@torch.no_grad()
def score_task(learner: Learner, task: Task, batch: int | None = None) -> dict[str, Any]:
    """Score the state that a learner holds on a task, on the split that its sequence is scored on.

    Returns `score` (% exact match), `correct`, `n`, and `score_options` (% when only the task's options compete; None
    for models that generate).
    """
    family, batch = learner.family, batch or learner.sequence.evaluation.batch
    examples = task.read(learner.sequence.split)
    features = family.features(task, examples)
    order = sorted(range(len(examples)), key=lambda i: len(features[i]["source"]))  # little padding
    correct = correct_options = 0
    restricted = False
    with _evaluating(family):
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            answers = _answers(learner, task, [features[i] for i in chosen])
            for i, (answer, among) in zip(chosen, answers, strict=True):
                correct += is_correct(answer, examples[i].label)
                restricted |= among is not None
                correct_options += among is not None and is_correct(among, examples[i].label)
    n = len(examples)
    options = 100.0 * correct_options / n if restricted else None
    return {"score": 100.0 * correct / n, "score_options": options, "correct": correct, "n": n}


def _answers(learner: Learner, task: Task, features: list[Feature]) -> list[tuple[str, str | None]]:
    """The model's own answers, or those of a method that answers by embeddings."""
    family, device = learner.family, learner.workers.device
    if learner.stack.tuning.trains_by_gradient:
        return family.answers(task, features, device)
    embedded_Bd = family.embed(family.collate(features).to(device))
    scores_BK = learner.stack.tuning.class_scores(embedded_Bd)
    unseen = len(family.labels) - scores_BK.shape[1]
    answers = family.best_labels(task, F.pad(scores_BK, (0, unseen), value=-math.inf))
    # beside methods that generate, whose answers have no options to choose from
    return [(answer, None) for answer, _ in answers] if family.generates else answers


@contextlib.contextmanager
def _evaluating(family: Family) -> Iterator[None]:
    family.module.eval()
    try:
        yield
    finally:
        family.module.train()


def missing_scores(sequence: SequencePlan, row: int, store: Store) -> list[int]:
    """The columns of a row that no one has computed yet."""
    return [j for j, key in enumerate(sequence.score_keys[row]) if store.load_score(key) is None]


def compute_score(learner: Learner, store: Store, row: int, column: int) -> None:
    """Score the state that `learner` holds, the one after task `row` (0: before any), on one task; cache the cell."""
    sequence, started = learner.sequence, time.monotonic()
    task = learner.stream.tasks[column]
    learner.stack.before_scoring(learner.family.module, learner.place(column))
    with learner.precision():
        cell = score_task(learner, task)
    cell["seconds"] = round(time.monotonic() - started, 3)
    store.save_score(sequence.score_keys[row][column], cell)


def score_events(sequence: SequencePlan, row: int, store: Store) -> Iterator[dict[str, Any]]:
    """The `cell` events of a row whose cells are all cached."""
    for column, key in enumerate(sequence.score_keys[row]):
        cell = store.load_score(key)
        assert cell is not None
        yield {"event": "score", "tasks_seen": row, "task_id": column, "key": key, **cell}
