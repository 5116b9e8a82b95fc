"""The identities that facts have in MLflow. They are derived here alone, so that copying a journal twice changes nothing.

A run is found by its tags, a logged model by its tag, a metric's point by its key, step and time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

SEQUENCE_TAG = "orchestrator.sequence"
TASK_TAG = "orchestrator.task_id"
PARENT_TAG = "orchestrator.node"
# MLflow's filters on models do not take a tag with a dot
MODEL_TAG = "orchestrator_model"

# the task id of the run that is about a whole sequence
WHOLE_SEQUENCE = -1


@dataclass(frozen=True)
class RunIdentity:
    """The run of one task of a sequence, or of all of them."""

    sequence_id: str
    task_id: int = WHOLE_SEQUENCE

    def tags(self) -> dict[str, str]:
        """The tags that no other run of an MLflow experiment has together."""
        return {SEQUENCE_TAG: self.sequence_id, TASK_TAG: str(self.task_id)}

    def model_tags(self) -> dict[str, str]:
        """The tag of the logged model that belongs to a task's run."""
        return {MODEL_TAG: f"{self.sequence_id}/{self.task_id}"}


class ParentRun(NamedTuple):
    """A run that others hang below: its key, which its tag holds, and the name that it is shown under."""

    key: str
    name: str


def search_run(search: str) -> ParentRun:
    """The run of a whole search."""
    return ParentRun(f"search:{search}", f"{search}: search")


def trial_name(method: str, number: int) -> str:
    """The name of a trial within its search."""
    return f"{method}-{number:03d}"


def trial_run(search: str, trial: str, definition: str) -> ParentRun:
    """The run of a trial, such as `ft+migu-007`. A search that is defined anew under its old name has other trials."""
    # eight digits tell the few definitions of one search apart, and a person can read the key
    return ParentRun(f"{search_run(search).key}/{trial}-{definition[:8]}", f"{search}-{trial}")


def evaluation_run(search: str, chosen_sha256: str) -> ParentRun:
    """The run of a search's evaluation phase. Another choice is another evaluation, with a run of its own."""
    return ParentRun(f"{search_run(search).key}/evaluation-{chosen_sha256[:8]}", "evaluation")
