"""Errors cross the borders of processes, and what catches one catches no other."""

from __future__ import annotations

import pickle

import pytest

from orchestrator import errors
from orchestrator.errors import CommandFailed, NonFiniteLoss, SequenceFailed, UserError, WorkerFailed

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_comes_whole_through_a_pickle(kind: type[Exception]) -> None:
    error = pickle.loads(pickle.dumps(kind("loss is nan in task 'a', step 2")))
    assert type(error) is kind
    assert str(error) == "loss is nan in task 'a', step 2"
    assert "__init__" not in vars(kind), "unpickling would call it with the message alone"


def test_who_catches_what() -> None:
    """A worker's failure is tried again, a sequence's is not; neither ends as the user's mistake."""
    assert len(KINDS) == 5
    assert issubclass(NonFiniteLoss, SequenceFailed)
    assert issubclass(UserError, ValueError)
    apart = (UserError, SequenceFailed, WorkerFailed, CommandFailed)
    for one in apart:
        for other in apart:
            assert issubclass(one, other) == (one is other)
