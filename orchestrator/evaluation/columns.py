"""All that a state is to be given: its scores on tasks and, behind these, its results in benchmarks of base abilities.

They are counted as columns: those of the tasks first.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.evaluation.abilities.probes import compute_probe, missing_probes, probe_events
from orchestrator.evaluation.scores import ScoredModel, compute_score, missing_scores, score_events
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import ProbeComputed, ScoreComputed
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.store.records.event import Event
from orchestrator.store.view import View, read_view
from streams import Stream


def missing_columns(sequence: SequencePlan, tasks_seen: int, store: Store) -> list[int]:
    """The columns that the state after `tasks_seen` tasks (0: the initial model) is to have, and nobody has computed."""
    return missing_scores(sequence, tasks_seen, store) + missing_probes(sequence, tasks_seen, store)


def compute_column(
    model: ScoredModel, sequence: SequencePlan, stream: Stream, store: Store, tasks_seen: int, column: int
) -> None:
    """Compute a column of the state that `model` holds, and keep it."""
    if column < len(sequence.tasks):
        compute_score(model, sequence, stream, store, tasks_seen, column)
    else:
        compute_probe(model, sequence, store, tasks_seen, column)


def column_name(sequence: SequencePlan, column: int) -> str:
    """The task or benchmark of a column."""
    return [*sequence.tasks, *sequence.probe_names][column]


def column_events(sequence: SequencePlan, tasks_seen: int, store: Store) -> Iterator[ScoreComputed | ProbeComputed]:
    """The events of the columns of one state, all of which are cached."""
    yield from score_events(sequence, tasks_seen, store)
    yield from probe_events(sequence, tasks_seen, store)


def note_columns(sequence: SequencePlan, tasks_seen: int, store: Store) -> None:
    """Write the columns of one state to its sequence's journal: those that the journal does not have."""
    # experiments may share the sequence, and each score its states in a process of its own
    with store.lock(f"scores-{sequence.id}", timeout=-1):
        view = read_view(sequence.out, sequence.id)
        new_events: list[Event] = []
        for event in column_events(sequence, tasks_seen, store):
            if not view.knows(event):
                new_events.append(event)
        if new_events:
            Journal(journal_folder(sequence.out, sequence.id), "evaluate").append_all(new_events)


def lacks_columns(sequence: SequencePlan, view: View, tasks_seen: int) -> bool:
    """Whether a journal lacks columns that the plan asks for: it may have been written when fewer were asked for."""
    for task_id in sequence.tasks_to_score(tasks_seen):
        if (tasks_seen, task_id) not in view.scores:
            return True
    return any((tasks_seen, probe) not in view.probes for probe in sequence.probe_names)


def is_complete(sequence: SequencePlan, store: Store) -> bool:
    """Whether every score and probe of a sequence is there, and every state that was not pruned."""
    for key in sequence.keys[1:]:
        if not store.has(key) and not store.is_pruned(key):
            return False
    for tasks_seen in range(len(sequence.keys)):
        if missing_columns(sequence, tasks_seen, store):
            return False
    return True
