"""Errors cross the borders of processes, and what catches one catches no other."""

from __future__ import annotations

import pickle

import pytest

from orchestrator import errors
from orchestrator.errors import (
    CommandFailed,
    NonFiniteLoss,
    SequenceFailed,
    UserError,
    WorkerFailed,
    as_given,
    shortened,
    shown,
)

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_comes_whole_through_a_pickle(kind: type[Exception]) -> None:
    error = pickle.loads(pickle.dumps(kind("loss is nan in task 'a', step 2")))
    assert type(error) is kind
    assert str(error) == "loss is nan in task 'a', step 2"
    assert "__init__" not in vars(kind), "unpickling would call it with the message alone"


def test_who_catches_what() -> None:
    """A worker's failure is tried again, a sequence's is not; neither ends as the user's mistake."""
    assert len(KINDS) == 7
    assert issubclass(NonFiniteLoss, SequenceFailed)
    assert issubclass(UserError, ValueError)
    apart = (UserError, SequenceFailed, WorkerFailed, CommandFailed)
    for one in apart:
        for other in apart:
            assert issubclass(one, other) == (one is other)


def test_what_is_long_keeps_its_beginning_and_its_end() -> None:
    assert shortened("x" * 300) == "x" * 300
    cut = shortened("begin " + "x" * 1_000 + " end")
    assert len(cut) == 300
    assert cut.startswith("begin x") and cut.endswith("x end") and " … " in cut


def test_a_value_that_cannot_be_written_is_said_so() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(10**5_000) == "a int that is too large to write"
    assert shown(deep) == "a list that is too large to write"
    assert shown("a\nb") == r"'a\nb'"
    assert len(shown("x" * 1_000)) == 80


def test_a_name_is_quoted_only_where_it_must_be() -> None:
    assert as_given("training.lr=1") == "training.lr=1"
    assert as_given("") == "''"
    assert as_given("\n") == r"'\n'"
    assert len(as_given("x" * 1_000)) == 80
