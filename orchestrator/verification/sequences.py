"""The files of one sequence: its journal, its states, its scores and the answers that these are from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from orchestrator.planning.recovery import has_lost_facts
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.storage.places import folder_at
from orchestrator.store.checkpoints import Store
from orchestrator.store.events import ProbeComputed, ScoreComputed
from orchestrator.store.journal import journal_folder
from orchestrator.store.predictions import DamagedPredictions, load_predictions, predictions_file
from orchestrator.store.scores import score_file
from orchestrator.store.view import View, read_view
from orchestrator.training.scoring import tasks_trained
from orchestrator.verification.findings import Finding, Remedy
from orchestrator.verification.lines import damaged_lines, is_whole_event

NOT_AS_WRITTEN = "it is not what was written"
MISSING = "it is missing"


@dataclass(frozen=True)
class SequenceFiles:
    """The files of a sequence. `is_over`: a trial whose search has chosen, of which nothing is computed again."""

    sequence: SequencePlan
    is_over: bool = False

    @cached_property
    def store(self) -> Store:
        """Where its states and scores are."""
        return Store(folder_at(self.sequence.out))

    @cached_property
    def view(self) -> View:
        """What its journal says."""
        return read_view(self.sequence.out, self.sequence.id)

    @cached_property
    def recorded_scores(self) -> dict[str, dict[str, Any]]:
        """What its journal says of each score, by the score's key, as the score's file holds it."""
        records = {}
        place = {"time", "tasks_seen", "task_id", "task", "probe", "key"}
        events: list[ScoreComputed | ProbeComputed] = [*self.view.scores.values(), *self.view.probes.values()]
        for event in events:
            records[event.key] = event.model_dump(mode="json", exclude=place)
        return records

    def is_at_hand(self, tasks_seen: int) -> bool:
        """Whether a state will be scored again: it is the initial model, or was stored and not pruned."""
        if self.is_over:
            return False
        return tasks_trained(self.sequence, tasks_seen) == 0 or self.store.has(self.sequence.keys[tasks_seen])

    def damaged_journal(self) -> Iterator[Finding]:
        """The damaged lines of its journal, or that it lacks lines which it once had."""
        folder = journal_folder(self.sequence.out, self.sequence.id)
        findings: list[Finding] = []
        for file in sorted(folder.glob("*.jsonl")):
            findings += damaged_lines(file, is_whole_event, Remedy.FROM_STORE)
        if not findings and has_lost_facts(self.view):
            findings.append(Finding(folder, "lines are missing", Remedy.FROM_STORE))
        elif not findings and self.view.start is None and self._has_made_a_state():
            findings.append(Finding(folder, MISSING, Remedy.FROM_STORE))
        yield from findings

    def _has_made_a_state(self) -> bool:
        for key in self.sequence.keys[1:]:
            if self.store.has_history(key) and self.store.maker(key) == self.sequence.id:
                return True
        return False

    def damaged_state(self, tasks_seen: int) -> Iterator[Finding]:
        """Whether a state that was made is no longer what was written."""
        key = self.sequence.keys[tasks_seen]
        folder = self.store.path(key)
        if folder.exists():
            # of a difference from a state that is damaged the files serve as they are when that one is made again
            if not self.store.has_sound_files(key):
                yield Finding(folder, "its files are not what was written", self._computed(Remedy.TRAIN))
            return
        task = self.view.by_task.get(tasks_seen - 1)
        if task is not None and task.checkpoint is not None and not self.is_over:
            yield Finding(folder, MISSING, Remedy.TRAIN)

    def damaged_scores(self, tasks_seen: int) -> Iterator[Finding]:
        """The scores of one state, and the answers beside them, that are not what was written."""
        again = self._computed(Remedy.EVALUATE if self.is_at_hand(tasks_seen) else Remedy.NONE)
        for key in (*self.sequence.score_keys[tasks_seen], *self.sequence.probe_keys_of(tasks_seen)):
            file = score_file(self.store.root, key)
            if (file.exists() or key in self.recorded_scores) and self.store.load_score(key) is None:
                what = NOT_AS_WRITTEN if file.exists() else MISSING
                yield Finding(file, what, Remedy.FROM_JOURNAL if key in self.recorded_scores else again)
            try:
                load_predictions(self.store.root, key)
            except DamagedPredictions:
                yield Finding(predictions_file(self.store.root, key), NOT_AS_WRITTEN, again)

    def damaged_points(self, task_id: int) -> Iterator[Finding]:
        """Whether the scores amid the training of a task are not what was written."""
        if not self.sequence.points_keys:
            return
        key = self.sequence.points_keys[task_id]
        file = score_file(self.store.root, key)
        if file.exists() and self.store.load_score(key) is None:
            is_known = any(position[0] == task_id for position in self.view.points)
            yield Finding(file, NOT_AS_WRITTEN, Remedy.FROM_JOURNAL if is_known else Remedy.NONE)

    def _computed(self, remedy: Remedy) -> Remedy:
        """How something is computed again, if anyone will."""
        return Remedy.UNNEEDED if self.is_over else remedy
