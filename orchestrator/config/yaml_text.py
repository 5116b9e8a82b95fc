"""Reading YAML that a user wrote: plain data of a sane size, or one line that says what is wrong with it."""

from __future__ import annotations

from typing import Any

import yaml

from orchestrator.errors import UserError

# The schema is seven deep, and a recipe of all orders has some hundred entries
MOST_DEPTH = 50
MOST_NODES = 100_000
# Seeds are the largest whole numbers that anything takes; a count of tokens or FLOPs is far below
MOST_INTEGER = 2**63
# Tabs and line ends are in prompts; nothing else below a space is in any text, and no file's name may have NUL
_ALLOWED_CONTROLS = "\t\n\r"

# What the constructors of yaml raise, past its own errors, for a text that its tag does not allow: `!!bool zebra`, 2024-99-99
_CONSTRUCTOR_ERRORS = (ValueError, KeyError, AttributeError, TypeError, IndexError, OverflowError)


class _CarefulLoader(yaml.SafeLoader):
    """YAML that refuses a key that is given twice, of which yaml itself would take the last one and drop the other unsaid.

    And whatever is nested or repeated by aliases beyond all sense: a few lines may stand for a billion values.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise _error(f"nested more than {MOST_DEPTH} deep", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if not isinstance(event, yaml.AliasEvent):
            self._sizes[id(node)] = 1 + self._size_of_parts(node)
        # an alias is met before its anchor's node is complete only within that node
        elif id(node) not in self._sizes:
            raise _error(f"the alias *{event.anchor} stands within what it names", event)
        if self._sizes[id(node)] > MOST_NODES:
            raise _error(f"more than {MOST_NODES:,} values", event)
        return node

    def _size_of_parts(self, node: yaml.Node) -> int:
        """The values below a node, each as often as aliases repeat it."""
        total = 0
        if isinstance(node, yaml.SequenceNode):
            for part in node.value:
                total += self._sizes[id(part)]
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                total += self._sizes[id(key)] + self._sizes[id(value)]
        return total

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # here, where a mapping is still as it was written: an entry that is merged in by `<<` is meant to be replaced
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if (key.tag, str(key.value)) in seen:
                raise _error(f"the key {_start_of(key.value)!r} is given twice", key)
            seen.add((key.tag, str(key.value)))
        return node

    def construct_scalar(self, node: yaml.Node) -> Any:
        value: Any = super().construct_scalar(node)  # type: ignore[arg-type]
        for char in value:
            # escapes bring in what the reader refuses in plain text
            if (char < " " and char not in _ALLOWED_CONTROLS) or "\ud800" <= char <= "\udfff":
                raise _error(f"the character {char!r}, which no text has", node)
        return value

    def construct_yaml_int(self, node: Any) -> int:
        digits = self.construct_scalar(node)
        # asked first: Python itself refuses to read thousands of digits, and to write what hexadecimal digits gave
        if len(digits) <= 100:
            value: int = super().construct_yaml_int(node)
            if abs(value) <= MOST_INTEGER:
                return value
        raise _error(f"a whole number of {len(digits)} digits; allowed: up to {MOST_INTEGER:.2g}", node)


_CarefulLoader.add_constructor("tag:yaml.org,2002:int", _CarefulLoader.construct_yaml_int)


def read_yaml(text: str, source: str) -> Any:
    """What a YAML text says. Raises UserError that names the source, and the line where that is known."""
    try:
        return yaml.load(text, _CarefulLoader)
    except yaml.YAMLError as error:
        line = ""
        # only errors of syntax have a mark, and YAML counts lines from 0
        mark = getattr(error, "problem_mark", None)
        if mark is not None:
            line = f", line {mark.line + 1}"
        # of characters that YAML does not have, the reason; its whole message has several lines
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or type(error).__name__
        raise UserError(f"{source}{line}: malformed YAML: {problem}") from None
    except _CONSTRUCTOR_ERRORS as error:
        raise UserError(f"{source}: malformed YAML: a value that is none of its kind ({error})") from None


def _error(problem: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


def _start_of(key: Any) -> str:
    return str(key)[:40]
