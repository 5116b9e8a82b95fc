"""Where text comes from: one file a source, found by its name, by an installed package's entry point, or by its path."""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import entry_points

from streams.names import unknown_name
from streams.sources.embedded import EmbeddedSource
from streams.sources.folder import FolderSource
from streams.sources.hub import HubSource
from streams.sources.source import Source

ENTRY_POINT_GROUP = "continual_orchestrator.streams"
SOURCES: dict[str, type[Source]] = {"embedded": EmbeddedSource, "folder": FolderSource, "hub": HubSource}


def source_names() -> list[str]:
    """The sources that go by a name: those of this package, then those of installed packages."""
    # by the entry points' names: none is imported for a list
    installed = entry_points(group=ENTRY_POINT_GROUP).names
    return [*SOURCES, *sorted(installed - set(SOURCES))]


def find_source(name: str) -> type[Source]:
    """The source of that name, or the class at a dotted path such as `my_package.data.JsonLines`.

    Raises ValueError for a name that nobody has, and for what cannot be imported or is no source.
    """
    if name in SOURCES:
        return SOURCES[name]
    # asked for by name: a package that is installed but broken must not stop the streams of others
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        try:
            return _checked(name, point.load())
        except (ImportError, AttributeError) as error:
            raise ValueError(f"source {name!r} of an installed package cannot be imported: {error}") from error
    # `package.module:Class` is how entry points write the same
    module, _, attribute = name.replace(":", ".").rpartition(".")
    if module:
        try:
            return _checked(name, getattr(importlib.import_module(module), attribute))
        except (ImportError, AttributeError) as error:
            raise ValueError(f"source {name!r} cannot be imported: {error}") from error
    raise ValueError(unknown_name("source", name, source_names()) + "; or give the dotted path of a class")


# Said here rather than where a stream is opened: by then the mistake is far from the line that made it.
def _checked(name: str, found: object) -> type[Source]:
    if inspect.isclass(found) and issubclass(found, Source):
        return found
    raise ValueError(f"source {name!r} is no class derived from streams.sources.source.Source")
