"""Scores of stored states, by one who does not train them; and scores amid training, by one who does."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from orchestrator.config.method import MethodEntry
from orchestrator.config.training import TrainingConfig
from orchestrator.determinism import deterministic
from orchestrator.evaluation.columns import column_name, compute_column, missing_columns
from orchestrator.evaluation.curves.during import Looks, point_steps, undisturbed
from orchestrator.evaluation.scores import ScoredModel
from orchestrator.models.family import Family
from orchestrator.planning.keys import check_unchanged
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.storage.places import folder_at
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import PointScored
from orchestrator.store.records.event import Report
from orchestrator.training.learner import Learner
from orchestrator.training.parallel import Parallel
from orchestrator.training.task import Position, train_task
from streams import EndTask, Stream

logger = logging.getLogger(__name__)


class StateScorer:
    """Scores stored states, one after the other. Between them it keeps the data, and the model of the last one's sequence."""

    def __init__(self, parallel: Parallel | None = None) -> None:
        self.parallel = parallel or Parallel.current()
        self.learner: Learner | None = None

    def score(self, sequence: SequencePlan, tasks_seen: int) -> None:
        """Compute the missing scores of one state (0: the initial model). Records nothing in the journal."""
        store = Store(folder_at(sequence.out))
        missing = missing_columns(sequence, tasks_seen, store)
        if not missing:
            return
        # not kept before it is done: what an error leaves behind is not gone on with
        learner = self._learner_of(sequence)
        key = sequence.keys[tasks_seen]
        trained = tasks_trained(sequence, tasks_seen)
        if trained == 0 and not learner.state.is_after(0, "score"):
            learner.load_initial()
        elif trained > 0 and store.is_sound(key):
            learner.load(store.load(key), tasks_seen)
        elif trained > 0 and not missing_columns(sequence, tasks_seen, store):
            # Another sequence shares the state, and it was pruned when that one's scores were there
            return
        elif trained > 0:
            raise ValueError(f"checkpoint {store.path(key)} is missing or changed")
        with deterministic(sequence.training.deterministic):
            compute_scores(learner, store, tasks_seen, missing, Position())
        self.learner = learner

    def _learner_of(self, sequence: SequencePlan) -> Learner:
        """The learner that is kept, where it is the sequence's; else a new one, with the data where they are the same."""
        kept = self.learner
        self.learner = None
        stream = None
        if kept is not None and (kept.sequence.stream, kept.sequence.split) == (sequence.stream, sequence.split):
            stream = kept.stream
            # they lie in memory, and are read for this state all the same
            sequence.note_test_reads(stream)
        if kept is not None and stream is not None and kept.sequence == sequence:
            return kept
        stream = stream or sequence.open_stream()
        check_unchanged(sequence, stream)
        logger.info("a new learner for %s", sequence.id)
        return Learner(sequence, stream, self.parallel)


def score_state(sequence: SequencePlan, tasks_seen: int, parallel: Parallel | None = None) -> None:
    """Compute the missing scores of one stored state, as a `StateScorer` does, and keep nothing."""
    StateScorer(parallel).score(sequence, tasks_seen)


def compute_scores(
    learner: Learner, store: Store, tasks_seen: int, task_ids: Sequence[int], position: Position
) -> None:
    """Score the state that a learner holds on tasks."""
    model = replace(learner.scored_model(), fine_tuned=partial(fine_tuned, learner))
    for task_id in task_ids:
        position.task = column_name(learner.sequence, task_id)
        try:
            compute_column(model, learner.sequence, learner.stream, store, tasks_seen, task_id)
        except Exception as error:
            # the traceback names no task, and the failure of a scoring task only the state
            error.add_note(f"while the state after {tasks_seen} tasks was scored on task {position.task!r}")
            raise


class PointScorer:
    """Scores the present weights amid the training of one task, on a few examples of it and of those before it.

    Each score is added to `points`.

    `look` is to be called on every worker. It changes nothing of the training.
    """

    def __init__(
        self,
        learner: Learner,
        looks: Looks,
        task_id: int,
        num_steps: int,
        report: Report,
        points: list[PointScored],
    ) -> None:
        self.learner = learner
        self.looks = looks
        self.task_id = task_id
        self.report = report
        self.steps = set(point_steps(num_steps, looks.during.every))
        self.points = points

    def look(self, step: int) -> None:
        """Score the weights after so many steps of the task, if there is to be a point, and report each score."""
        if step not in self.steps:
            return
        for scored_id, (score, num_examples, seconds) in enumerate(self._score_all()):
            point = PointScored(
                task_id=self.task_id,
                step=step,
                scored_id=scored_id,
                scored_task=self.learner.sequence.tasks[scored_id],
                score=score,
                n=int(num_examples),
                seconds=round(seconds, 3),
            )
            self.points.append(point)
            self.report(point)

    def _score_all(self) -> list[list[float]]:
        """(score, examples, seconds) of each task so far. The workers share the tasks, where each has the whole model."""
        parallel = self.learner.parallel
        model = self.learner.scored_model()
        # in float64, in which scores are computed
        found = torch.zeros(self.task_id + 1, 3, dtype=torch.float64, device=parallel.device)
        with undisturbed(model):
            # the oldest last: what a method then fails to put back shows with one worker as with several
            for task_id in parallel.share_of(range(self.task_id, -1, -1)):
                began = time.monotonic()
                result = self.looks.score(model, task_id)
                if parallel.keeps_scores:
                    numbers = [result.score, result.n, time.monotonic() - began]
                    found[task_id] = torch.tensor(numbers, dtype=torch.float64)
        # of each task one worker knows the score, and the others add 0
        rows: list[list[float]] = parallel.sum(found).tolist()
        return rows


def tasks_trained(sequence: SequencePlan, tasks_seen: int) -> int:
    """The number of tasks whose state the one after `tasks_seen` tasks is: 0 while a reference run has trained nothing."""
    kind = sequence.method.run_kind
    for task_id in range(tasks_seen):
        if kind.is_trained(task_id, len(sequence.tasks)):
            return tasks_seen
    return 0


def fine_tuned(learner: Learner, end_task: EndTask) -> ScoredModel:
    """A copy of the state that a learner holds, fine-tuned on the end task of a corpus: all weights, with a head of its own.

    It is a function of the state, the end task and the sequence's seed, and the learner keeps its state. An encoder's head over
    the vocabulary has no part in it; a decoder learns to write the labels. Raises ValueError where a worker holds a part of
    the model alone.
    """
    if learner.parallel.holds_parts:
        raise ValueError("end_task: a copy of the whole model is fine-tuned; it goes with scaling.strategy: ddp")
    sequence = learner.sequence
    model = sequence.model.model_copy(update={"base": "float32"})
    if model.scoring == "masked":
        model = model.model_copy(update={"scoring": "head"})
    training = TrainingConfig(
        lr=end_task.lr,
        epochs=end_task.epochs,
        global_batch=end_task.batch,
        weight_decay=end_task.weight_decay,
        schedule="linear",
    )
    name = end_task.task.name
    method = MethodEntry.model_validate("ft")
    plan = sequence.model_copy(update={"model": model, "method": method, "training": training, "tasks": (name,)})
    # by this worker alone: others score other tasks meanwhile
    alone = Parallel(device=learner.parallel.device)
    with torch.random.fork_rng(), torch.enable_grad():
        copy = Learner(plan, Stream(name, (end_task.task,)), alone)
        copy.load_initial()
        _copy_weights(learner.family, copy.family)
        train_task(copy, 0, lambda event: None)
    return copy.scored_model()


@torch.no_grad()
def _copy_weights(source: Family, copy: Family) -> None:
    """Put the weights of a model into another of its architecture, but for the heads of the two.

    Raises ValueError where the first has weights elsewhere, as an adapter's.
    """
    prefix = ""
    if type(source) is not type(copy):
        # what lies outside the transformer itself is a head, the other one of which is new
        prefix = f"{source.module.base_model_prefix}."
    weights = dict(copy.module.named_parameters())
    for name, weight in source.module.named_parameters():
        if not name.startswith(prefix):
            continue
        if name not in weights or weights[name].shape != weight.shape:
            raise ValueError(f"end_task: a copy of the model has no weight {name!r} of shape {tuple(weight.shape)}")
        weights[name].copy_(weight)
