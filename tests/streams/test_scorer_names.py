"""The names of scorers."""

from __future__ import annotations

import pytest

from streams import DEFAULT_SCORER, SCORER_VERSIONS, check_scorer


def test_known_scorers_pass_and_others_are_refused_with_the_nearest() -> None:
    assert DEFAULT_SCORER in SCORER_VERSIONS
    for name in SCORER_VERSIONS:
        check_scorer(name)
    with pytest.raises(ValueError, match=r"unknown scorer 'exact'\. Did you mean 'exact-match'"):
        check_scorer("exact")
