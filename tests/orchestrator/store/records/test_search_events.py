"""The facts about a search and its trials."""

from __future__ import annotations

from orchestrator.store.identities import ParentRun
from orchestrator.store.records.search_events import RungDecided, SearchFinished, TrialSuggested


def test_events_of_a_trial_hang_below_the_search() -> None:
    search = ParentRun("search:mine", "mine: search")
    assert SearchFinished(summary={}).parent_runs("mine") == (search,)
    drawn = TrialSuggested(definition="0123456789", method="ft", number=7, values={}, notes={})
    assert drawn.trial == "ft-007"
    assert drawn.parent_runs("mine") == (search, ParentRun("search:mine/ft-007-01234567", "mine-ft-007"))
    rung = RungDecided(definition="0123456789", method="ft", number=7, tasks=2, score=1.0, goes_on=True)
    assert rung.parent_runs("mine") == drawn.parent_runs("mine")
