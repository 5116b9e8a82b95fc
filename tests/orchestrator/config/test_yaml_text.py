"""YAML that says too much, or what no text and no number is, is refused in one line."""

from __future__ import annotations

import pytest

from orchestrator.config.yaml_text import MOST_DEPTH, MOST_INTEGER, read_yaml
from orchestrator.errors import UserError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
BOMB += "c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\n"
BOMB += "e: [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * (MOST_DEPTH + 1), "nested more than 50 deep"),
        ("[" * 100_000, "nested more than 50 deep"),
        (BOMB, "more than 100,000 values"),
        ("a: &a [*a]", r"the alias \*a stands within what it names"),
        ("a: 1\nb: {c: 1, c: 2}", "line 2: malformed YAML: the key 'c' is given twice"),
        ("9" * 5_000, "a whole number of 5000 digits"),
        ("0x" + "f" * 5_000, "a whole number of 5002 digits"),
        (str(MOST_INTEGER + 1), "allowed: up to 9.2e\\+18"),
        (r'"a\0b"', r"the character '\\x00', which no text has"),
        (r'"\ud800"', r"the character '\\ud800', which no text has"),
        ("!!bool zebra", "a value that is none of its kind"),
        ("2024-99-99", "month must be in 1..12"),
        ("!!python/name:os.system", "could not determine a constructor"),
        ("a\0b", "special characters are not allowed"),
    ],
)
def test_what_is_refused(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as refused:
        read_yaml(text, "here")
    assert str(refused.value).startswith("here")
    assert "\n" not in str(refused.value)


def test_what_is_read() -> None:
    assert read_yaml("[" * MOST_DEPTH + "]" * MOST_DEPTH, "here")
    assert read_yaml(f"[{MOST_INTEGER}, -7, 0x10, 1_000]", "here") == [MOST_INTEGER, -7, 16, 1000]
    assert read_yaml(r'"a\tb\nc"', "here") == "a\tb\nc"
    assert read_yaml("a: &a {x: 1}\nb: {<<: *a, x: 2}", "here") == {"a": {"x": 1}, "b": {"x": 2}}
    assert read_yaml("", "here") is None
