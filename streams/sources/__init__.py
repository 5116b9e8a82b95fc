"""Where text comes from: one file a source, found by its name, by an installed package's entry point, or by its path."""

from __future__ import annotations

import importlib
import inspect
import sys
from importlib.metadata import entry_points
from pathlib import Path

from streams.names import unknown_name
from streams.sources.corpus import CorpusSource
from streams.sources.embedded import EmbeddedSource
from streams.sources.embedded_corpora import EmbeddedCorporaSource
from streams.sources.files import FilesSource
from streams.sources.folder import FolderSource
from streams.sources.hub import HubSource
from streams.sources.source import Source
from streams.sources.trace import TraceSource

ENTRY_POINT_GROUP = "continual_orchestrator.streams"
SOURCES: dict[str, type[Source]] = {
    "embedded": EmbeddedSource,
    "folder": FolderSource,
    "files": FilesSource,
    "hub": HubSource,
    "corpus": CorpusSource,
    "embedded-corpora": EmbeddedCorporaSource,
    "trace": TraceSource,
}


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
        return _load(f"source {name!r} of an installed package", point.module, point.attr)
    # `package.module:Class` is how entry points write the same
    module, _, attribute = name.replace(":", ".").rpartition(".")
    if module:
        _look_where_the_user_stands()
        return _load(f"source {name!r}", module, attribute)
    raise ValueError(unknown_name("source", name, source_names()) + "; or give the dotted path of a class")


def _load(shown: str, module: str, attribute: str) -> type[Source]:
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{shown} cannot be imported: {error}") from error
    # whatever a user's module does while it is imported, the user needs one line that says where
    except Exception as error:
        reason = (str(error).splitlines() or ["no message"])[0]
        raise ValueError(f"{shown} cannot be imported: {type(error).__name__}: {reason}") from error
    # said here rather than where a stream is opened: by then the mistake is far from the line that made it
    if inspect.isclass(found) and issubclass(found, Source):
        return found
    raise ValueError(f"{shown} is no class derived from streams.sources.source.Source")


def _look_where_the_user_stands() -> None:
    """Have modules found in the present folder, as `python -m` and Ray's workers do and a console script does not."""
    here = str(Path.cwd())
    if "" not in sys.path and here not in sys.path:
        # last in the path, so that a file there never hides an installed package
        sys.path.append(here)
        importlib.invalidate_caches()
