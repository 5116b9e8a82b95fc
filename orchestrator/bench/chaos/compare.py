"""Whether a run that was disturbed says what the undisturbed one says: no less, nothing twice, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.bench.chaos.facts import Facts, copied_times, recorded_times


@dataclass(frozen=True)
class Difference:
    """A fact that was lost, is there twice, or has another value."""

    kind: Literal["lost", "doubled", "differs"]
    fact: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.fact}"


def compare(expected: Facts, found: Facts) -> list[Difference]:
    """How facts differ from those that are expected, in the order of their names."""
    differences: list[Difference] = []
    for name in sorted({**expected, **found}):
        values = found.get(name, [])
        if not values:
            differences.append(Difference("lost", name))
        # what should not be there at all is one too many as well
        if len(values) > len(expected.get(name, [])):
            differences.append(Difference("doubled", name))
        known = expected.get(name, values)
        if values and values[0] != known[0]:
            differences.append(Difference("differs", f"{name}: {_shown(values[0])} for {_shown(known[0])}"))
    return differences


def compare_copy(out: Path) -> list[Difference]:
    """How MLflow's copy differs from the journals in when things were: of values the undisturbed run tells."""
    return compare(recorded_times(out), copied_times(out))


def counts(differences: list[Difference]) -> Mapping[str, int]:
    """How many differences there are of each kind."""
    numbers = {"lost": 0, "doubled": 0, "differs": 0}
    for difference in differences:
        numbers[difference.kind] += 1
    return numbers


def _shown(value: str) -> str:
    return value if len(value) <= 40 else f"{value[:37]}..."
