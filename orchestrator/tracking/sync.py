"""The copy of the journals in MLflow. Training never waits for it, and nothing is only there.

Every run, model and metric has an identity that follows from the sequence, so reading a journal twice changes nothing:
runs and models are found by their tags, and a metric with the same key, step, value and time is stored once. How far a
journal was copied is noted (see `notes`), so that the next command goes on from there and sends nothing twice.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from orchestrator import logs
from orchestrator.config.experiment import RunConfig
from orchestrator.planning.experiment import tracking_uri
from orchestrator.redaction import redacted
from orchestrator.storage.places import folder_at, seconds_between_looks
from orchestrator.store.locks import exclusive_lock
from orchestrator.tracking.comparing.differences import Difference, differences
from orchestrator.tracking.comparing.expected import expected_runs
from orchestrator.tracking.comparing.mending import mend
from orchestrator.tracking.connection import Connection
from orchestrator.tracking.notes import Notes
from orchestrator.tracking.runs import Runs
from orchestrator.tracking.search_runs import SearchRuns, note_name
from orchestrator.tracking.sequence_runs import SequenceRuns

logger = logging.getLogger(__name__)

# The end of a run is held up for no longer than this by a tracking server that takes nothing
SYNC_SECONDS = 120

# So often what differs is mended, before it is said that it does
MENDINGS = 2

# Between two looks at the journals, and between two tries
PAUSE_SECONDS = 1.0
OBJECT_PAUSE_SECONDS = 10.0

# So often the same trouble comes again after the closing before the rest is left for the next command
LAST_FAILURES = 2


class MlflowSync:
    """A thread that reads journals and writes to MLflow, until it is closed and has read all."""

    def __init__(
        self,
        uri: str,
        experiment: str,
        out: str,
        search: Path | None = None,
        tell: Callable[[str], None] = logger.warning,
        every_point: bool = False,
    ) -> None:
        self.uri = uri
        self.experiment = experiment
        self.out = out
        self.search = search
        self.tell = tell
        # compare every point of all that is followed, not only that all is there, once, of what was copied
        self.every_point = every_point
        self.mended: list[str] = []
        self.differences: list[str] = []
        self.compared = {"runs": 0, "models": 0, "points": 0}
        self.sequences: dict[str, None] = {}  # in the order in which they came
        self.trouble = ""
        self._copies: _Copies | None = None
        self._num_mendings = 0
        self._is_comparing = False
        self._touched: dict[str, None] = {}
        self._search_is_touched = False
        self._expects_news = threading.Event()
        self._closing = threading.Event()
        # a daemon: a server that hangs must not keep the command from ending
        self._thread = threading.Thread(target=self._work, name="mlflow-sync", daemon=True)
        self._thread.start()

    def follow(self, sequences: Iterable[str]) -> None:
        """Copy the journals of these sequences too, by their ids."""
        self.sequences |= dict.fromkeys(sequences)

    def expect_news(self) -> None:
        """There will be something to copy: connect at once, which takes seconds, before the workers need the CPUs."""
        self._expects_news.set()

    def close(self, patience: float, say: Callable[[str], None] | None = None) -> bool:
        """Copy the rest; False if that came to a stand for `patience` seconds. The next command copies what is missing.

        `say` is told again and again how much of the journals has arrived.
        """
        self._closing.set()
        arrived = 0
        deadline = time.monotonic() + patience
        while self._thread.is_alive() and time.monotonic() < deadline:
            self._thread.join(0.5)
            if self._is_comparing:
                deadline = time.monotonic() + patience
            if self._arrived() != arrived:
                # however long it takes: a limit on the whole would cut a large backlog off at every start
                arrived = self._arrived()
                deadline = time.monotonic() + patience
                if say and self._thread.is_alive():
                    say(f"copying to MLflow: {self.percent()} % of the journals are there")
        return not self._thread.is_alive() and not self.trouble and not self.differences

    def percent(self) -> int:
        """How much of the journals is in MLflow, in whole percents."""
        copies = self._copies
        return copies.percent() if copies else 0

    def _work(self) -> None:
        failures = 0
        while True:
            # asked before copying: what was recorded before the closing is then copied once more
            closing = self._closing.is_set()
            arrived = self._arrived()
            try:
                is_done = self._copy()
                self.trouble = ""
                if closing and is_done and self._is_in_step():
                    return
            # whatever MLflow, its database or the network raise, the journals have it all
            except Exception as error:
                is_known = self._note_trouble(error)
                if closing and is_known and self._arrived() == arrived:
                    failures += 1
                else:
                    failures = 0
                # what was half copied is copied again from where it was last noted: that changes nothing
                self._copies = None
                if failures == LAST_FAILURES:
                    return
            if closing:
                time.sleep(PAUSE_SECONDS)
            else:
                # not `sleep`: closing wakes it at once
                self._closing.wait(seconds_between_looks(self.out, PAUSE_SECONDS, OBJECT_PAUSE_SECONDS))

    def _copy(self) -> bool:
        """Copy what is new; False where another process is at it."""
        if self._copies is None:
            connection = Connection(self.uri, self.experiment, self.out, self.tell)
            self._copies = _Copies(connection, self.search)
        if self._expects_news.is_set():
            self._copies.connection.connect()
        is_done = self._copies.pull(list(self.sequences))
        self._touched |= self._copies.touched
        self._search_is_touched |= self._copies.search_is_touched
        return is_done

    def _is_in_step(self) -> bool:
        """Compare with the journals what was copied; False where something was mended, which is then to be copied again."""
        copies = self._copies
        sequence_ids = list(self.sequences) if self.every_point else list(self._touched)
        search = self.search if self.every_point or self._search_is_touched else None
        if copies is None or not (sequence_ids or search):
            return True
        found = self._compare(copies, sequence_ids, search)
        self.differences = [difference.line for difference in found]
        if not found or self._num_mendings == MENDINGS:
            return True
        self.mended += self.differences
        if not self.every_point:
            self.tell(f"MLflow differed from the journals in {len(found)} thing(s), which is mended: {found[0].line}")
        search_note = note_name(self.search) if self.search else ""
        # What copying anew does not mend is replaced at the second time, where that was asked for: on a server that several
        # share, a run may have the same experiment's points from another folder too.
        replace = self.every_point and self._num_mendings > 0
        mend(copies.runs.client, copies.notes, found, search_note, replace)
        self._num_mendings += 1
        self._copies = None
        return False

    def _compare(self, copies: _Copies, sequence_ids: list[str], search: Path | None) -> list[Difference]:
        expected = expected_runs(self.out, sequence_ids, search)
        self.compared = {
            "runs": len(expected),
            "models": sum(run.model is not None for run in expected.values()),
            "points": sum(run.num_points() for run in expected.values()),
        }
        # each request has a limit of its own, so that the whole needs none
        self._is_comparing = True
        try:
            return list(differences(copies.runs, expected, self.every_point))
        finally:
            self._is_comparing = False

    def _note_trouble(self, error: Exception) -> bool:
        """Keep what went wrong; says whether it is the same as the last time."""
        trouble = _one_line(error)
        is_known = trouble == self.trouble
        # it tries again each second: the same trouble is written once
        if not is_known:
            logs.write_failure(logs.tracking_log(self.out), "copying to MLflow", error)
        self.trouble = trouble
        return is_known

    def _arrived(self) -> int:
        """How many bytes of the journals are in MLflow."""
        copies = self._copies
        return copies.copied_bytes() if copies else 0


class _Copies:
    """The copies of journals in one experiment of MLflow, each of which knows how far it is."""

    def __init__(self, connection: Connection, search_folder: Path | None) -> None:
        self.connection = connection
        self.out = connection.out
        self.runs = Runs(connection)
        self.notes = Notes(connection)
        self.search: SearchRuns | None = None
        if search_folder:
            self.search = SearchRuns(self.runs, search_folder, self.notes)
        self.by_sequence: dict[str, SequenceRuns] = {}
        # what had something new
        self.touched: dict[str, None] = {}
        self.search_is_touched = False

    def pull(self, sequence_ids: list[str]) -> bool:
        """Copy what is new: the search first, below whose runs the sequences' hang, and how it ended last.

        False, and nothing done, where another process is at it: two that look for a run at once would both create it.
        """
        for sequence_id in sequence_ids:
            if sequence_id not in self.by_sequence:
                self.by_sequence[sequence_id] = SequenceRuns(self.runs, self.out, sequence_id, self.notes)
        # most looks find nothing: the lock, which may be far away, is not asked for then
        if not self._has_news():
            return True
        with exclusive_lock(folder_at(self.out) / "locks", f"tracking-{self.notes.folder.name}", timeout=0) as locked:
            if locked:
                self._pull()
        return locked

    def _has_news(self) -> bool:
        if self.search and self.search.tail.has_news():
            return True
        return any(copy.tail.has_news() for copy in self.by_sequence.values())

    def _pull(self) -> None:
        if self.search and self.search.pull():
            self.search_is_touched = True
        for sequence_id, copy in self.by_sequence.items():
            if copy.pull():
                self.touched[sequence_id] = None
        if self.search:
            self.search.end()

    def copied_bytes(self) -> int:
        """How much of the sequences' journals has arrived."""
        # a list of them: the thread that copies adds more meanwhile
        return sum(copy.copied_bytes for copy in list(self.by_sequence.values()))

    def percent(self) -> int:
        """How much of the sequences' journals has arrived, in whole percents."""
        total = sum(copy.tail.num_bytes() for copy in list(self.by_sequence.values()))
        return 100 * self.copied_bytes() // max(total, 1)


def _one_line(error: Exception) -> str:
    # before it is cut: of half a URI nobody knows what the password is
    lines = redacted(str(error)).splitlines() or [""]
    request, was_request, _ = lines[0].partition(" failed with exception ")
    # what follows says all of this again, in the words of three libraries
    if was_request:
        return f"{request} failed ({type(error.__context__).__name__})"
    return f"{type(error).__name__}: {lines[0][:200]}"


def sync_of(
    config: RunConfig, tell: Callable[[str], None], search: Path | None = None, every_point: bool = False
) -> MlflowSync:
    """The copy in MLflow of an experiment, and of the search whose folder is given; `tell` gets what is to be warned of."""
    name = config.tracking.experiment or config.name
    return MlflowSync(tracking_uri(config), name, config.out, search, tell, every_point)


def close(sync: MlflowSync, config: RunConfig, say: Callable[[str], None]) -> str | None:
    """None, or a line that says that the copy is not complete: no failure, since the journals are."""
    if sync.close(SYNC_SECONDS, say):
        return None
    why = ""
    if sync.trouble:
        why = f": {sync.trouble} (log: {logs.tracking_log(sync.out)})"
    state = f"is behind the journals, of which {sync.percent()} % are there"
    if sync.differences and not sync.trouble:
        state = f"differs from the journals in {len(sync.differences)} thing(s), such as: {sync.differences[0]}"
    next_command = f"orchestrator sync {config.name} --out {config.out}"
    return f"MLflow at {redacted(sync.uri)} {state}{why}. Copy the rest: {next_command}"
