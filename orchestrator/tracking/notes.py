"""How far each journal has been copied to an MLflow experiment, kept below the output folder.

A note is believed where the journal still begins with the bytes that were read, and the experiment still has every run and
model that they gave. So a journal that was mended, a store that was deleted and a run that somebody deleted are each copied
anew from the start, which changes nothing of what is there.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from orchestrator.redaction import redacted
from orchestrator.storage.places import folder_at
from orchestrator.store.integrity import seal, unseal, write_whole
from orchestrator.store.journal import Digest, ResumableTail
from orchestrator.tracking.connection import Connection

# Raised when what is sent of a journal changes: all of them are then copied once more
FORMAT = 1


@dataclass(frozen=True)
class Note:
    """What was read of each of a journal's files, and the ids of the runs and models that it gave, by what they are of."""

    files: dict[str, Digest] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)


class Notes:
    """The notes on the journals of an output folder, for one experiment of one store."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        # a folder that was moved is still the one that its own database is in
        # a password that was changed is no other store
        store = redacted(connection.uri).replace(connection.out, "")
        name = hashlib.sha256(f"{FORMAT} {store} {connection.experiment}".encode()).hexdigest()[:16]
        self.folder = folder_at(connection.out) / "tracking" / name

    @cached_property
    def _present_ids(self) -> set[str]:
        # asked once for all journals: what is deleted while this process runs, the next one finds missing
        return self.connection.present_ids()

    def take_up(self, journal: str, tail: ResumableTail) -> Note:
        """The note on a journal, from whose end on the tail then reads; an empty one where there is none to be believed."""
        try:
            values = unseal(self._file(journal).read_bytes())
        # none, or torn: it saves time and holds nothing that is not in the journal
        except (OSError, ValueError):
            return Note()
        note = Note(**values)
        if self._present_ids.issuperset((*note.runs.values(), *note.models.values())) and tail.go_on_from(note.files):
            return note
        return Note()

    def keep(self, journal: str, note: Note) -> None:
        """Note how far a journal is copied. Call it when the store has all of it."""
        write_whole(self._file(journal), seal(asdict(note)) + b"\n")

    def forget(self, journal: str) -> None:
        """Have a journal copied from its start."""
        self._file(journal).unlink(missing_ok=True)

    def _file(self, journal: str) -> Path:
        return self.folder / f"{journal}.json"


class NoNotes:
    """Nothing is known of journals, and nothing is kept: each is read from its start."""

    def take_up(self, journal: str, tail: ResumableTail) -> Note:
        """An empty note."""
        return Note()

    def keep(self, journal: str, note: Note) -> None:
        """Nothing is kept."""
