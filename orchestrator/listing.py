"""What can be named in a configuration, for `orchestrator list`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from methods import PRESETS, PUBLISHED, REFERENCE_RUNS, Method, TuningMethod, registered_methods
from orchestrator.config.loading import load_config, recipe_names
from orchestrator.models.source import DESCRIPTIONS as MODELS
from streams import DESCRIPTIONS as STREAMS
from streams import FOLDER_STREAMS

Row = dict[str, Any]


def methods() -> list[Row]:
    """Tuning methods and plug-ins, then the presets made of them."""
    parts = [
        {
            "name": name,
            "kind": "tuning method" if issubclass(method, TuningMethod) else "plug-in",
            "what": method.card.summary,
            "needs": ", ".join(method.card.needs),
            "extra memory": method.card.memory,
            "arXiv": method.card.paper,
            "searched": _searched(method),
            "published": "",
        }
        for name, method in registered_methods().items()
    ]
    return parts + [_preset(name, spec) for name, spec in PRESETS.items()]


def _preset(name: str, spec: Mapping[str, Any]) -> Row:
    made_of = " + ".join(map(_part, [spec["tuning"], *spec.get("plugins", [])]))
    reference = f" ({REFERENCE_RUNS[spec['reference']].sentence})" if "reference" in spec else ""
    published = ", ".join(
        f"{key} {value}" for key, value in PUBLISHED.get(name, {}).items() if key in ("lr", "global_batch")
    )
    empty = dict.fromkeys(("needs", "extra memory", "arXiv", "searched"), "")
    return {"name": name, "kind": "preset", "what": made_of + reference, **empty, "published": published}


def _part(part: str | Mapping[str, Any]) -> str:
    """`migu`, or `merge (rule ties)`."""
    if isinstance(part, str):
        return part
    return f"{part['name']} ({', '.join(f'{k} {v}' for k, v in part.items() if k != 'name')})"


def _searched(method: type[Method]) -> str:
    space = {**(method.card.training_space if issubclass(method, TuningMethod) else {}), **method.card.space}
    return "; ".join(f"{key} {' '.join(map(str, values))}" for key, values in space.items())


def streams() -> list[Row]:
    """The streams and their tasks."""
    return [{"name": n, "what": w, "tasks": " ".join(FOLDER_STREAMS.get(n, ()))} for n, w in STREAMS.items()]


def models() -> list[Row]:
    """The built-in models."""
    return [{"name": name, "what": what} for name, what in MODELS.items()]


def recipes() -> list[Row]:
    """The recipes that come with the package."""
    rows = []
    for name in recipe_names():
        config = load_config(name)
        labels = ", ".join(m.label for m in config.methods)
        rows.append(
            {
                "name": name,
                "model": config.model.name,
                "streams": ", ".join(s.name for s in config.streams),
                "methods": labels,
            }
        )
    return rows


LISTINGS: dict[str, Callable[[], list[Row]]] = {
    "methods": methods,
    "streams": streams,
    "models": models,
    "recipes": recipes,
}


def print_listing(what: str, console: Console) -> None:
    """Tables of what there is; of methods one of the parts, one of what a search tries, and one of the presets."""
    rows = LISTINGS[what]()
    if what != "methods":
        console.print(_table(rows, list(rows[0])))
        return
    parts = [row for row in rows if row["kind"] != "preset"]
    columns = ["name", "what", "needs", "extra memory", "arXiv"]
    console.print(_table([r for r in parts if r["kind"] == "tuning method"], columns, "tuning methods: one a method"))
    console.print(_table([r for r in parts if r["kind"] == "plug-in"], columns, "plug-ins: any number, in order"))
    console.print(_table([r for r in parts if r["searched"]], ["name", "searched"], "what a search tries"))
    presets = [row for row in rows if row["kind"] == "preset"]
    console.print(
        _table(presets, ["name", "what", "published"], "presets; `training: published` asks for the last column")
    )


def _table(rows: list[Row], columns: list[str], title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column in ("name", "arXiv"), overflow="fold")
    for row in rows:
        table.add_row(*(str(row[column]) for column in columns))
    return table
