"""Reading a configuration: YAML files, recipes that extend each other, `--set` overrides, and errors in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from methods import unknown
from orchestrator.config.experiment import RunConfig
from orchestrator.config.messages import explain
from orchestrator.errors import UserError

RECIPES = Path(__file__).parent.parent / "recipes"


DEFAULT_RECIPE = "embedded"


def recipe_names() -> list[str]:
    """The recipes that come with the project."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_config(source: str | None = None, overrides: Sequence[str] = (), out: str | None = None) -> RunConfig:
    """The configuration from a recipe's name or a YAML file, with `a.b=c` overrides. Raises UserError."""
    values = _load_mapping(source or DEFAULT_RECIPE)
    for section, key in (("streams", "name"), ("methods", "preset")):
        if isinstance(values.get(section), list):
            values[section] = [{key: entry} if isinstance(entry, str) else entry for entry in values[section]]
    for override in overrides:
        _set(values, override)
    if out is not None:
        values["out"] = out
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{_where(source)}: {explain(error)}") from None
    return config.model_copy(update={"out": str(Path(config.out).expanduser().resolve())})


def _where(source: str | None) -> str:
    return f"recipe {source or DEFAULT_RECIPE}" if (source or DEFAULT_RECIPE) in recipe_names() else str(source)


def _load_mapping(source: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """The YAML mapping, laid over the one that it `extends`."""
    is_file = source.endswith((".yaml", ".yml")) or "/" in source
    if not is_file and source not in recipe_names():
        raise UserError(unknown("recipe", source, recipe_names()) + "; or give a .yaml file")
    if source in seen:
        raise UserError(f"{source}: extends itself ({' -> '.join([*seen, source])})")
    path = Path(source).expanduser() if is_file else RECIPES / f"{source}.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{source}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{source}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{source}{line}: malformed YAML: {getattr(error, 'problem', error)}") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UserError(f"{source}: expected a mapping of settings, found {type(values).__name__}")
    base = values.pop("extends", None)
    if base is not None:
        inherited = {k: v for k, v in _load_mapping(str(base), (*seen, source)).items() if k != "name"}
        values = _merge(inherited, values)
    values.setdefault("name", path.stem)
    return values


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if (
            isinstance(value, Mapping) and isinstance(merged.get(key), Mapping) and key != "budget"
        ):  # which is one thing
            value = _merge(dict(merged[key]), value)
        merged[key] = value
    return merged


def _set(values: dict[str, Any], override: str) -> None:
    """Apply one `a.b=c`; numbers in the path index lists. `streams.max_train` without an index means every stream."""
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise UserError(f"--set {override}: expected KEY=VALUE, such as training.lr=1e-4")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"--set {override}: the value is not valid YAML") from None
    _place(values, path.split("."), _number(value), override)


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as text; a number was meant."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _place(node: Any, keys: list[str], value: Any, override: str) -> None:
    key, rest = keys[0], keys[1:]
    if isinstance(node, list):
        if not key.isdigit():
            for item in node:
                _place(item, keys, value, override)
            return
        if int(key) >= len(node):
            raise UserError(f"--set {override}: there is no entry {key}; the list has {len(node)}")
        if rest:
            _place(node[int(key)], rest, value, override)
        else:
            node[int(key)] = value
    elif isinstance(node, dict):
        if rest:
            _place(node.setdefault(key, {}), rest, value, override)
        else:
            node[key] = value
    else:
        raise UserError(f"--set {override}: {key!r} is below a value, not a section")
