"""The names by which a task says how its answers are scored, and the version of each scorer.

The scorers themselves are in `orchestrator.evaluation`, which knows tasks; a task knows its scorer by name alone. A
score is cached under that name and version, so a scorer whose results change gets a new version here.
"""

from __future__ import annotations

from streams.names import unknown_name

DEFAULT_SCORER = "exact-match"
SCORER_VERSIONS: dict[str, int] = {DEFAULT_SCORER: 1}


def check_scorer(name: str) -> None:
    """Raises ValueError for a name that no scorer has."""
    if name not in SCORER_VERSIONS:
        raise ValueError(unknown_name("scorer", name, SCORER_VERSIONS))
