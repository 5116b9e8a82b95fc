"""A search that is killed anywhere, run with any number of slots and with trials that end in any order, stays the same search."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.search import SearchConfig
from orchestrator.search.decisions.halving import rungs
from orchestrator.search.decisions.suggestions import Sampler, TrialRecord
from orchestrator.search.definition import MethodSearch, Search, prepare
from orchestrator.search.space import Values
from orchestrator.search.trial_store import TrialStore
from orchestrator.search.trials import Trial, score_after, tasks_done
from orchestrator.store.journal import Tail, journal_folder
from orchestrator.store.records.search_events import RungDecided, TrialSuggested
from tests.orchestrator.search.searches import EVALUATION, TUNING, Matrix, search_config, write_scores

# With four tasks the rungs are after two of them and after three.
ASHA = {"scheduler": "asha", "grace": 2, "reduction": 1.5}
RANGES = {"training.lr": {"low": 1e-5, "high": 1e-1, "log": True}, "migu.ratio": {"low": 0.05, "high": 0.95}}
LISTS = {"training.lr": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1], "migu.ratio": [0.3, 0.6]}

# A trial follows from its number and values, and planning one takes longer than all else here.
PLANNED: dict[str, Trial] = {}


class Killed(Exception):
    """The process died."""


class Store(TrialStore):
    """A trial store that does not plan a trial again which another process of this test planned."""

    def _make_trial(self, method_search: MethodSearch, number: int, values: Values) -> Trial:
        key = json.dumps([str(self.folder), method_search.definition, number, values])
        if key not in PLANNED:
            PLANNED[key] = super()._make_trial(method_search, number, values)
        return PLANNED[key]


def prepared(out: Path, searcher: str, scheduler: str, **search: Any) -> Search:
    """A search of four tasks each trial, in rounds of three."""
    halving = ASHA if scheduler == "asha" else {}
    space = LISTS if searcher == "grid" else RANGES
    streams = [{**TUNING, "first": 4}]
    settings = {
        "searcher": searcher,
        "space": space,
        "at_once": 3,
        "trials": 14,
        "streams": streams,
        **halving,
        **search,
    }
    return prepare(search_config(out, ["ft+migu"], evaluated=[{**EVALUATION, "first": 4}], **settings), gpu=False)


def opened(search: Search, **changes: Any) -> Store:
    """The trials as a new process finds them."""
    settings = search.settings.model_copy(update=changes)
    return Store(search.folder, settings, search.planner, search.method_searches)


def matrix_of(trial: Trial) -> Matrix:
    """Scores that follow from the values alone; after each task the trials are in another order."""
    draws = random.Random(json.dumps(trial.values))
    return [[draws.uniform(1, 99)] * trial.num_tasks for _ in range(trial.num_tasks + 1)]


def train(trial: Trial, tasks: int, failure: str = "") -> None:
    """Write what a trial's journal says after so many tasks, if it does not say more."""
    (sequence,) = trial.sequences
    if failure or tasks_done(trial.views()) < tasks:
        shutil.rmtree(journal_folder(sequence.out, sequence.id), ignore_errors=True)
        write_scores(sequence, matrix_of(trial)[: tasks + 1], failure=failure)


class Machine:
    """Runs a search's trials in slots: at each step a drawn one goes on, and with a drawn chance the process dies."""

    def __init__(self, search: Search, seed: int, slots: int, death_rate: float) -> None:
        shutil.rmtree(search.config.out, ignore_errors=True)
        self.search = search
        self.draws = random.Random(seed)
        self.slots = slots
        self.death_rate = death_rate
        self.deaths = 0
        self.store = opened(search)
        # of each trial that runs: the numbers of tasks that are before it
        self.live: dict[str, list[int]] = {}

    def run(self) -> TrialStore:
        """Run to the end, with as many processes as it takes."""
        while not self.store.is_done():
            try:
                self._step()
                self._maybe_die()
            except Killed:
                self.deaths += 1
                self.live = {}
                self.store = opened(self.search)
                self.store.record_complete()
        return self.store

    def _maybe_die(self) -> None:
        if self.draws.random() < self.death_rate:
            raise Killed

    def _step(self) -> None:
        if len(self.live) < self.slots and self.draws.random() < 0.7:
            trial = self.store.start_next()
            if trial:
                self.live[trial.key] = [*rungs(self.search.settings, trial.num_tasks), trial.num_tasks]
        if self.live:
            key = self.draws.choice(sorted(self.live))
            self._advance(self.store.trials[key], self.live[key].pop(0))

    def _advance(self, trial: Trial, tasks: int) -> None:
        is_last = tasks == trial.num_tasks
        # One in ten fails, in its last task.
        failure = "the loss is nan" if is_last and matrix_of(trial)[0][0] < 10 else ""
        train(trial, tasks - 1 if failure else tasks, failure)
        self._maybe_die()
        score = score_after(self.search.settings, trial.views(), tasks - 1 if failure else tasks)
        if is_last or not self.store.passes_rung(trial, tasks, score):
            # Told to stop, and perhaps dead before that is recorded as its end.
            self._maybe_die()
            self.store.record_result(trial)
            del self.live[trial.key]


def outcome(store: TrialStore) -> list[Any]:
    """What was suggested, how each trial ended, and which is chosen."""
    facts: list[Any] = []
    for trial in store.trials_of("ft+migu"):
        result = store.results[trial.key]
        facts.append((trial.key, trial.values, result.status, result.tasks, result.score))
    best = store.best("ft+migu")
    return [*facts, best and best.key]


@pytest.mark.parametrize("scheduler", ["fifo", "asha"])
@pytest.mark.parametrize("searcher", ["random", "grid", "tpe", "cma"])
def test_kills_slots_and_order_change_nothing(tmp_path: Path, searcher: str, scheduler: str) -> None:
    search = prepared(tmp_path / "out", searcher, scheduler)
    whole = outcome(Machine(search, seed=0, slots=1, death_rate=0.0).run())
    statuses = {facts[2] for facts in whole[:-1]}
    assert len(whole) == 15
    assert ("stopped" in statuses) == (scheduler == "asha")
    assert "finished" in statuses
    for seed in range(1, 4):
        death_rate = 0.0 if seed == 1 else 0.15
        machine = Machine(search, seed, slots=1 + seed, death_rate=death_rate)
        assert outcome(machine.run()) == whole, f"seed {seed}"
        assert (machine.deaths > 0) == (death_rate > 0)


def test_a_journal_cut_at_any_line_leads_to_the_same_search(tmp_path: Path) -> None:
    """As if the process had died after the line, or in it; the trials' own journals are those of that time or later."""
    search = prepared(tmp_path / "out", "tpe", "asha")
    machine = Machine(search, seed=3, slots=3, death_rate=0.0)
    whole = outcome(machine.run())
    file = search.folder / "trials.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    for cut in range(0, len(lines), 7):
        # every other cut tears the next line
        torn = lines[cut][:20] if cut % 2 else b""
        file.write_bytes(b"".join(lines[:cut]) + torn)
        machine.live = {}
        machine.store = opened(search)
        machine.store.record_complete()
        assert outcome(machine.run()) == whole, f"cut before line {cut}"


def test_each_suggestion_follows_from_the_history_that_it_names(tmp_path: Path) -> None:
    search = prepared(tmp_path / "out", "tpe", "fifo")
    store = Machine(search, seed=4, slots=3, death_rate=0.0).run()
    suggested = [event for event in Tail(search.folder).new_events() if isinstance(event, TrialSuggested)]
    for event in suggested:
        assert len(event.history) == event.number // 3 * 3, "all of the rounds before, and none of its own"
        records = []
        for earlier in suggested[: event.number]:
            is_known = earlier.number < len(event.history)
            score = event.history[earlier.number] if is_known else None
            records.append(TrialRecord(earlier.values, score, not is_known, earlier.notes))
        again = Sampler(search.settings, search.method_searches[0].space).suggest(event.number, records)
        assert again
        assert again.values == event.values
    results = [store.results[f"ft+migu-{number:03d}"] for number in range(12)]
    assert suggested[-1].history == [r.score if r.status == "finished" else None for r in results]


def test_a_round_waits_for_the_one_before_it(tmp_path: Path) -> None:
    search = prepared(tmp_path / "out", "random", "asha")
    store = opened(search)
    first = [store.start_next() for _ in range(3)]
    assert all(first)
    assert store.start_next() is None, "however many slots are free"
    assert not store.is_done()
    for trial in first[:2]:
        assert trial
        train(trial, 4)
        store.record_result(trial)
        assert store.start_next() is None
    assert first[2]
    train(first[2], 4)
    store.record_result(first[2])
    assert store.start_next()
    plain = opened(prepared(tmp_path / "plain", "random", "fifo"))
    for _ in range(14):
        assert plain.start_next(), "where nothing is learnt nothing waits"


def test_a_trial_that_was_told_to_stop_does_not_run_again(tmp_path: Path) -> None:
    """And one that passed goes on, whatever it would be told now."""
    search = prepared(tmp_path / "out", "random", "asha", at_once=1)
    store = opened(search)
    scores = [50.0, 40.0, 60.0]
    for score in scores:
        trial = store.start_next()
        assert trial
        train(trial, 2)
        if store.passes_rung(trial, 2, score) and score == 50.0:
            train(trial, 4)
            store.record_result(trial)
        else:
            again = opened(search)
            again.record_complete()
            assert (trial.key in again.results) == (score == 40.0)
            if score == 60.0:
                assert again.passes_rung(trial, 2, 0.0)
                continue
            assert (again.results[trial.key].status, again.results[trial.key].tasks) == ("stopped", 2)
            store = again
    decisions = [event for event in Tail(search.folder).new_events() if isinstance(event, RungDecided)]
    assert [(event.number, event.tasks, event.score, event.goes_on) for event in decisions] == [
        (0, 2, 50.0, True),
        (1, 2, 40.0, False),
        (2, 2, 60.0, True),
    ]


def test_rounds_are_of_the_definition_where_they_matter(tmp_path: Path) -> None:
    def definition(number: int, searcher: str, at_once: int) -> str:
        return prepared(tmp_path / str(number), searcher, "fifo", at_once=at_once).definition

    assert definition(1, "random", 2) == definition(2, "random", 4)
    assert definition(3, "tpe", 2) != definition(4, "tpe", 4)
    settings = {"streams": ["embedded-tuning"], "searcher": "tpe"}
    assert SearchConfig.model_validate(settings).at_once == 4, "whatever fits on this machine"
