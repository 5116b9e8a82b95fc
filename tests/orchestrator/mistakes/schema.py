"""Wrong values for every setting that the configuration's schema has, its methods', sources' and scenarios' among them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydantic import BaseModel

from methods import METHODS, Method
from orchestrator.config.experiment import RunConfig
from streams import SCENARIOS, SOURCES
from tests.orchestrator.mistakes.attempt import Mistake

# As YAML writes them: what is no number that anybody means
NO_NUMBERS = [".nan", ".inf", "-.inf", "-1e300", "1e300", "9" * 5000, "0x" + "f" * 5000, "9" * 30, "-" + "9" * 30]
LISTS = ["[]", "[zebra]", "[[[[]]]]", "[null]", "[{}]"]
MAPPINGS = ["{}", "{zebra: 1}", "{1: 2}", "{null: null}", "{[a]: 1}"]
TEXTS = ['"a\\0b"', '"\\uD800"', '"zebra\\nzebra"', "zebra" * 2000, '"\\u202Ezebra\\U0001F993"', "'" + " " * 300 + "'"]
# With these, no field that takes a text takes it for a name
NO_NAMES = ['"a\\0b"', '"\\uD800"', "''", "x" * 300, "../../x", '"x\\ny"', "7", "[x]", "{x: y}"]
# Sections that are not there by default, and what they need beside the value that is wrong
SECTIONS_NEED = {"search": "search.streams=[{name: embedded, row_half: 0}]"}


def wrong_settings() -> SearchStrategy[Mistake]:
    """One setting of the schema with one value that it cannot have."""
    return st.sampled_from(list(_fields(RunConfig, ""))).flatmap(_wrong_setting)


def wrong_parts() -> SearchStrategy[Mistake]:
    """One setting of a part of a method, of a source or of a scenario, with one value that it cannot have."""
    return st.sampled_from(list(_parts())).flatmap(_wrong_part)


def _fields(section: type[BaseModel], path: str) -> Iterator[tuple[str, Any]]:
    """The path of each setting below a section, with its type."""
    for name, field in section.model_fields.items():
        # a section of its own kind for each source
        if name in ("settings", "scenario"):
            continue
        here = f"{path}{name}"
        yield here, field.annotation
        inner = _section_in(field.annotation)
        if inner is not None and issubclass(inner, BaseModel) and inner.__name__ != "Part":
            index = "0." if _kind(field.annotation) == "list" else ""
            if name != "space":
                yield from _fields(inner, f"{here}.{index}")


def _section_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _section_in(argument)
        if found is not None:
            return found
    return None


def _parts() -> Iterator[tuple[str, Any]]:
    """A configuration's entry with a hole for a value, for each setting of each part, and the setting's type."""
    for name, method in METHODS.items():
        for key, field in method.Settings.model_fields.items():
            yield _method_entry(name, method, key), field.annotation
    for name, source in SOURCES.items():
        for key, field in source.model_fields.items():
            yield f"streams=[{{name: mine, source: {name}, {key}: VALUE}}]", field.annotation
    for name, scenario in SCENARIOS.items():
        for key, field in scenario.model_fields.items():
            if key != "name":
                yield f"streams.scenario={{name: {name}, {key}: VALUE}}", field.annotation


def _method_entry(name: str, method: type[Method], key: str) -> str:
    part = f"{{name: {name}, {key}: VALUE}}"
    from methods import TuningMethod

    if issubclass(method, TuningMethod):
        return f"methods=[{{tuning: {part}}}]"
    return f"methods=[{{tuning: full, plugins: [{part}]}}]"


def _wrong_setting(field: tuple[str, Any]) -> SearchStrategy[Mistake]:
    path, annotation = field
    section = path.split(".")[0]
    needed: tuple[str, ...] = ()
    if section in SECTIONS_NEED and path != section:
        needed = ("--set", SECTIONS_NEED[section])

    def mistake(value: str) -> Mistake:
        return Mistake(f"settings of {section}", ("run", *needed, "--set", f"{path}={value}"))

    return wrong_values(annotation, path).map(mistake)


def _wrong_part(entry: tuple[str, Any]) -> SearchStrategy[Mistake]:
    hole, annotation = entry
    section = hole.split("=")[0]

    def mistake(value: str) -> Mistake:
        return Mistake(f"parts of {section}", ("run", "--set", hole.replace("VALUE", value)))

    return wrong_values(annotation, hole).map(mistake)


def wrong_values(annotation: Any, path: str) -> SearchStrategy[str]:
    """What a setting of a type cannot be, as YAML writes it."""
    kind = _kind(annotation)
    if kind == "number":
        texts = st.text("abcxyz", min_size=1, max_size=8).map(json.dumps)
        negative = st.integers(-(10**9), -1).map(str)
        values = st.sampled_from([*NO_NUMBERS, *LISTS, *MAPPINGS, '""', "zebra" * 2000]) | texts | negative
    elif kind == "choice":
        values = st.sampled_from(["7", "zebra", '""', *LISTS, *MAPPINGS, *TEXTS, "9" * 5000])
    elif kind == "text":
        values = st.sampled_from(["7", "1.5", *NO_NUMBERS[:5], *LISTS, *MAPPINGS, '"a\\0b"', '"\\uD800"'])
    elif kind == "list":
        values = st.sampled_from(["7", "1e300", "9" * 5000, '"a\\0b"', "[[[[]]]]", "[null]", "{1: 2}"])
    elif kind == "section":
        values = st.sampled_from(["7", "9" * 5000, "zebra", "zebra" * 2000, "[7]", "{zebra: 1}", "{1: 2}", "{null: 1}"])
    else:
        values = st.sampled_from(["7", "9" * 5000, "zebra" * 2000, "[7]", "[[[[]]]]", '"a\\0b"'])
    return values


def _kind(annotation: Any) -> str:
    """What a type is, by the one among several that takes the most."""
    leaves = set(_leaves(annotation))
    for kind, types in (("number", {int, float}), ("text", {str})):
        if leaves & types and not leaves & {"list", "section", "any"}:
            # a number or a text: every text is one
            if kind == "number" and str in leaves:
                return "text or number"
            return kind
    for kind in ("list", "section", "choice"):
        if kind in leaves:
            return kind
    if leaves == {bool}:
        return "choice"
    return "mapping"


def _leaves(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Literal:
        yield "choice"
    elif origin in (tuple, list, frozenset):
        yield "list"
    elif origin is dict:
        yield "any"
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield "section"
    elif get_args(annotation):
        for argument in get_args(annotation):
            yield from _leaves(argument)
    elif annotation is Any:
        yield "any"
    elif isinstance(annotation, type):
        yield annotation
