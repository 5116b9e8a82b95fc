"""What a search decides: which values a trial tries, and whether it goes on after a rung of finished tasks.

suggestions     which values a trial tries
halving         which trials go on at a rung

Both follow from the trial's number and its history alone. The history is the trials of the rounds before the trial's own:
`search.at_once` trials of a method make a round, whose trials begin when those before it have all ended, and do not learn
from one another. So nothing depends on which of several trials ends first, on how many fit on the machines, or on where a
search was stopped: it goes on as if it had not been. The price is that at the end of a round a method's trials wait for its
last one; other methods, which have rounds of their own, use the room meanwhile.

Random and grid search without halving have no history, and wait for nothing.
"""

from __future__ import annotations

from orchestrator.config.search import SearchConfig


def first_of_round(search: SearchConfig, number: int) -> int:
    """The number of the first trial of a trial's round: those with lower numbers are its history."""
    return number - number % search.at_once
