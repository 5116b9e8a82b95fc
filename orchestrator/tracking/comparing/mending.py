"""Mending the copy in MLflow: what is too much is deleted, and what differs is made ready to be copied again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orchestrator.tracking.comparing.differences import Difference
from orchestrator.tracking.notes import Notes
from orchestrator.tracking.runs import ABOVE_TAG, DESCRIBED_TAG


def mend(client: Any, notes: Notes, differences: Iterable[Difference], search_note: str, replace: bool) -> None:
    """Delete what is too much, and forget how far the journals of all else were copied: the next copy completes them.

    `replace`: a run that a copy did not mend is deleted too, so that the next copy makes another one.
    """
    for difference in differences:
        if difference.mend == "hang":
            client.set_tag(difference.run_id, ABOVE_TAG, difference.above)
            continue
        sequence_id, _, _ = difference.identity
        notes.forget(sequence_id or search_note)
        if difference.model_id:
            client.delete_logged_model(difference.model_id)
        elif difference.mend == "delete" or (difference.run_id and (replace or difference.mend == "replace")):
            _delete(client, difference.run_id)
        elif difference.run_id:
            _describe_again(client, difference.run_id)


def _delete(client: Any, run_id: str) -> None:
    # several differences may be of one run, and MLflow deletes none twice
    if client.get_run(run_id).info.lifecycle_stage == "active":
        client.delete_run(run_id)


def _describe_again(client: Any, run_id: str) -> None:
    if DESCRIBED_TAG in client.get_run(run_id).data.tags:
        client.delete_tag(run_id, DESCRIBED_TAG)
