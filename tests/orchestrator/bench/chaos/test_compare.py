"""What counts as lost, doubled and different."""

from __future__ import annotations

from orchestrator.bench.chaos.compare import Difference, compare, counts


def test_a_fact_is_there_once_and_the_same() -> None:
    expected = {"a": ["1"], "b": ["2"], "c": ["3"], "d": ["4"]}
    found = {"a": ["1"], "b": ["2", "2"], "c": ["5"], "extra": ["6"]}
    differences = compare(expected, found)
    assert differences == [
        Difference("doubled", "b"),
        Difference("differs", "c: 5 for 3"),
        Difference("lost", "d"),
        Difference("doubled", "extra"),
    ]
    assert counts(differences) == {"lost": 1, "doubled": 2, "differs": 1}
    assert compare(expected, expected) == []
    assert counts([]) == {"lost": 0, "doubled": 0, "differs": 0}


def test_long_values_are_cut() -> None:
    (difference,) = compare({"matrix": ["[" + 99 * "1, " + "]"]}, {"matrix": ["2"]})
    assert str(difference) == "differs: matrix: 2 for [" + 12 * "1, " + "..."
