"""Options and arguments that a command has not, or whose values are none of theirs, for every command that there is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from tests.orchestrator.mistakes.attempt import Mistake

NO_NUMBERS = ["zebra", "", "-1", "nan", "inf", "-inf", "1e300", "9" * 5_000, "0x7", "\udcff", "99999999999999999999"]
NO_NAMES = ["nowhere", "", ".", "..", "../..", "/", "a\0b", "x" * 300, "x" * 5_000, "\udcff", "/proc/self", "/dev/null"]
NO_NAMES += ["[red]", "é\né", "-", "experiments", "~", "*"]


@dataclass(frozen=True)
class Command:
    """A command as it is called, with its options (name, types) and what it cannot do without."""

    path: tuple[str, ...]
    options: tuple[tuple[str, tuple[Any, ...]], ...]
    has_argument: bool
    needed: tuple[str, ...]
    needed_argument: tuple[str, ...]


def wrong_options() -> list[Mistake]:
    """Each command with options that it has not, and each of its options with values that it cannot have."""
    mistakes = []
    for command in _commands():
        call = (*command.path, *command.needed_argument, *command.needed)
        mistakes.append(Mistake("options: unknown", (*call, "--zebra")))
        mistakes.append(Mistake("options: unknown", (*call, "--" + "x" * 5_000)))
        mistakes.append(Mistake("arguments: too many", (*call, "zebra", "zebra", "zebra")))
        if command.needed or command.needed_argument:
            mistakes.append(Mistake("arguments: missing", command.path))
        for name, types in command.options:
            mistakes += _wrong_values(call, name, types)
        names = NO_NAMES if command.has_argument else []
        # which looks at any folder, and finds nothing wrong in one that has nothing of ours
        if command.path == ("verify",):
            names = [name for name in names if name not in (".", "..", "../..", "/", "/proc/self", "~")]
        for value in names:
            mistakes.append(Mistake("arguments: names", (*command.path, *command.needed, "--", value)))
    for name in ("zebra", "x" * 5_000, "--zebra", "", "-h h"):
        mistakes.append(Mistake("commands: unknown", (name,)))
        mistakes.append(Mistake("commands: unknown", ("bench", name)))
    for model in ("zz", "", "a\0b", "x" * 300, "nobody/nothing", "minilm2"):
        for kind in ("methods", "checkpoints"):
            mistakes.append(Mistake("bench --model", ("bench", kind, "--model", model)))
    return mistakes


def _wrong_values(call: tuple[str, ...], option: str, types: tuple[Any, ...]) -> list[Mistake]:
    mistakes = []
    if bool not in types:
        mistakes.append(Mistake("options: without a value", (*call, option)))
    values = []
    if int in types or float in types:
        values = NO_NUMBERS
    elif Literal in types:
        values = ["zebra", "", "x" * 5_000, "ALL"]
    # at most: infinity
    if option == "--most":
        values = [value for value in values if value != "inf"]
    for value in values:
        mistakes.append(Mistake("options: values", (*call, option, value)))
    return mistakes


def _commands() -> Iterator[Command]:
    from orchestrator.cli.app import app

    yield from _commands_of(app, ())
    for group in app.registered_groups:
        assert group.typer_instance is not None and group.name
        yield from _commands_of(group.typer_instance, (group.name,))


def _commands_of(group: typer.Typer, path: tuple[str, ...]) -> Iterator[Command]:
    for registered in group.registered_commands:
        assert registered.callback is not None
        name = registered.name or registered.callback.__name__.replace("_", "-")
        yield _command((*path, name), registered.callback)


def _command(path: tuple[str, ...], callback: Callable[..., Any]) -> Command:
    options = []
    has_argument = False
    needed: list[str] = []
    needed_argument: tuple[str, ...] = ()
    hints = get_type_hints(callback, include_extras=True)
    for name, parameter in inspect.signature(callback).parameters.items():
        kind, *described = get_args(hints[name])
        is_needed = parameter.default is inspect.Parameter.empty
        if any(isinstance(information, ArgumentInfo) for information in described):
            has_argument = True
            if is_needed:
                needed_argument = ("nowhere",)
            continue
        (information,) = [one for one in described if isinstance(one, OptionInfo)]
        option = "--" + name.replace("_", "-")
        if information.param_decls:
            option = information.param_decls[0].split("/")[0]
        if is_needed:
            needed += [option, "nowhere"]
        options.append((option, _types_in(kind)))
    return Command(path, tuple(options), has_argument, tuple(needed), needed_argument)


def _types_in(kind: Any) -> tuple[Any, ...]:
    if get_origin(kind) is Literal:
        return (Literal,)
    if not get_args(kind):
        return (kind,)
    found: list[Any] = []
    for argument in get_args(kind):
        found += _types_in(argument)
    return tuple(found)
