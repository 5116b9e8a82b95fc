"""Columns read as examples."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from streams import Example, Limits
from streams.sources.columns import ColumnTask

ROW = {"title": "A", "body": "b {c}", "stars.given": 4, "none": None, "label": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("body", "b {c}"),
        (("title", "body"), "A\nb {c}"),
        ("{title}: {body}!", "A: b {c}!"),
        ("{{{title}}} {stars.given} {title}", "{A} 4 A"),
        (("none", "title"), "\nA"),
    ],
)
def test_a_text_is_made_of_columns(text: Any, expected: str) -> None:
    task = ColumnTask(name="a", text=text)
    assert task.example(ROW, ("no", "yes")) == Example(expected, "yes")
    task.check_columns(list(ROW), "a file")


def test_a_label_is_an_index_where_it_is_an_integer() -> None:
    task = ColumnTask(name="a", text="title")
    labels = []
    for value in (0, 1, 2, -1, "no", None, True):
        labels.append(task.example({"title": "", "label": value}, ("no", "yes")).label)
    assert labels == ["no", "yes", "2", "-1", "no", "", "True"]


def test_an_answer_may_be_made_of_columns() -> None:
    task = ColumnTask(name="a", text="title", label="{body}\ncheck({title})")
    assert task.example(ROW, ()) == Example("A", "b {c}\ncheck(A)")
    with pytest.raises(ValueError, match="x has no column 'body'"):
        task.check_columns(["title"], "x")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text": []}, "expected a column's name"),
        ({"text": ""}, "expected a column's name"),
        ({"text": "{} words"}, "names no column in its braces"),
        ({"label": "{}"}, "'{}' names no column"),
        ({"label": ""}, "'' names no column"),
        ({"text": "{title!r}"}, "column 'title' is written with a format; write {title}"),
        ({"text": "{title"}, "a brace of the text itself is written twice"),
        ({"prompt": "plian"}, "unknown prompt 'plian'"),
        ({"scorer": "exact"}, "exact"),
        ({"colum": "a"}, "unknown key 'colum'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ColumnTask.model_validate({"name": "a", **settings})
    assert message in caught.value.errors()[0]["msg"]


def test_a_missing_column_is_named_with_those_that_are_there() -> None:
    task = ColumnTask(name="a", text="{titel}")
    with pytest.raises(ValueError, match=r"task 'a': x.csv has no column 'titel' \(it has title, label\)"):
        task.check_columns(["title", "label"], "x.csv")


def test_prompt_and_scorer_are_the_tasks() -> None:
    task = ColumnTask(name="a", prompt="Q: {text}\nA:", scorer="verbatim", instruction="Which?")
    made = task.task(("x", "y"), "here", lambda split: [], Limits(), "data")
    assert (str(made.prompt("t")), made.scorer, made.dataset) == ("Q: t\nA:", "verbatim", "data")
    plain = ColumnTask(name="a").task(("x", "y"), "here", lambda split: [], Limits(), "data")
    assert (plain.template.name, plain.scorer) == ("benchmark", "exact-match")
