"""Each thing that is otherwise than the journals say is found, and nothing where nothing is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.tracking.comparing.differences import differences
from orchestrator.tracking.comparing.expected import expected_runs
from orchestrator.tracking.connection import Connection
from orchestrator.tracking.runs import Runs
from tests.orchestrator.tracking.comparing.damages import DAMAGES, with_a_point_too_many, without_a_point
from tests.orchestrator.tracking.journals import Copied


def lines(copied: Copied, every_point: bool) -> list[str]:
    """What differs in a folder's store."""
    runs = Runs(Connection(copied.uri, "test", str(copied.out)))
    expected = expected_runs(str(copied.out), ["s"], None)
    return [difference.line for difference in differences(runs, expected, every_point)]


def test_where_nothing_differs_nothing_is_said(damaged: Callable[..., Copied]) -> None:
    copied = damaged()
    assert lines(copied, every_point=True) == lines(copied, every_point=False) == []


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_differs_is_said(damage: Callable[[Runs], None], damaged: Callable[..., Copied]) -> None:
    copied = damaged(damage)
    (line,) = lines(copied, every_point=True)
    assert DAMAGES[damage] in line
    # what a search of runs gives does not show how many points a metric has
    is_hidden = damage in (without_a_point, with_a_point_too_many)
    assert lines(copied, every_point=False) == ([] if is_hidden else [line])
