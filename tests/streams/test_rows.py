"""Which rows of a data set a task uses."""

from __future__ import annotations

from streams import Example, Limits
from streams.rows import usable_rows

ROWS = [Example("a", "x"), Example("b", "z"), Example("c", "other"), Example("D!", "y"), Example("e", "z")]


def test_rows_are_used_dropped_or_left_to_other_tasks() -> None:
    usable = usable_rows(ROWS, "t", ("x", "y"), frozenset({"other"}), Limits(skip_texts=frozenset({"d"})))
    assert [(example.text, example.row) for example in usable.examples] == [("a", 1)]
    assert (usable.num_dropped, usable.dropped_labels) == (2, {"z": 2})
    assert usable.first_dropped is not None and usable.first_dropped.row == 2
    # open answers may be anything
    assert len(usable_rows(ROWS, "t", (), frozenset(), Limits()).examples) == 5
