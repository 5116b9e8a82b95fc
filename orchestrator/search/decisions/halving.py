"""Which trials go on after a rung of finished tasks: asynchronous successive halving, decided once and kept in the journal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from orchestrator.config.search import SearchConfig
from orchestrator.search.trials import Trial, score_after, tasks_done
from orchestrator.store.journal import Journal
from orchestrator.store.records.search_events import RungDecided


def rungs(search: SearchConfig, num_tasks: int) -> list[int]:
    """After how many tasks a trial waits for the scheduler's word: grace, then each time `reduction` times as many."""
    rungs_of_trial: list[int] = []
    if search.scheduler != "asha":
        return rungs_of_trial
    tasks = float(search.grace)
    while math.ceil(tasks) < num_tasks:
        # With a small reduction two rungs can round up to the same task.
        if math.ceil(tasks) not in rungs_of_trial:
            rungs_of_trial.append(math.ceil(tasks))
        tasks *= search.reduction
    return rungs_of_trial


def goes_on(search: SearchConfig, score: float, earlier_scores: Sequence[float]) -> bool:
    """Whether a trial goes on after a rung: it is among the best 1/`reduction` there, or the first.

    This is the stopping variant of ASHA (arXiv 1810.05934), as Ray's `ASHAScheduler` and Syne Tune's type "stopping" have
    it: a trial is stopped for good or goes on at once, where the paper pauses it and may promote it later. Theirs compares
    a trial with whatever has reached the rung before it, so that who arrives first is stopped least. Here it is
    compared with the trials of its history: the first round is never stopped, and one trial a round is theirs exactly.
    """
    if not earlier_scores:
        return True
    cutoff = np.percentile(earlier_scores, (1 - 1 / search.reduction) * 100)
    return bool(score >= cutoff)


class Halving:
    """The decisions at the rungs, each made once: a trial that comes by again is told the same.

    Methods are not halved against each other, for one that protects more looks worse early: a history is of one method.
    """

    def __init__(self, search: SearchConfig, journal: Journal) -> None:
        self.search = search
        self._journal = journal
        # by a trial's key and the number of tasks at the rung
        self._decisions: dict[tuple[str, int], RungDecided] = {}

    def replay(self, decision: RungDecided) -> None:
        """Take up a decision of an earlier process."""
        self._decisions.setdefault((decision.trial, decision.tasks), decision)

    def passes(self, trial: Trial, tasks: int, score: float, history: Sequence[Trial]) -> bool:
        """Whether a trial with this score after so many tasks goes on."""
        key = (trial.key, tasks)
        if key not in self._decisions:
            earlier_scores = []
            for earlier in history:
                decision = self._decisions.get((earlier.key, tasks))
                if decision:
                    earlier_scores.append(decision.score)
            verdict = goes_on(self.search, score, earlier_scores)
            decision = RungDecided(**trial.identity, tasks=tasks, score=score, goes_on=verdict)
            # On disk before the trial hears of it: what was acted on must not be decided anew.
            self._journal.append(decision)
            self._decisions[key] = decision
        return self._decisions[key].goes_on

    def stopped_after(self, trial: Trial) -> int | None:
        """The number of tasks after which a trial was told to stop, if it was."""
        for (key, tasks), decision in self._decisions.items():
            if key == trial.key and not decision.goes_on:
                return tasks
        return None

    def decide_lost(self, trial: Trial, history: Sequence[Trial]) -> None:
        """Decide again, from what a trial trained, what a damaged journal lost."""
        views = trial.views()
        for rung in rungs(self.search, trial.num_tasks):
            if tasks_done(views) < rung:
                break
            if not self.passes(trial, rung, score_after(self.search, views, rung), history):
                break
