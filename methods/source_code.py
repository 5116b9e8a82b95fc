"""The code of a method's parts, as it goes into cache keys: a version of ours, the source of anyone else's.

A checkpoint must not be given to a method that has changed since. Ours say by their card's version that they compute
something else (a test compels them to); a user's part has nobody who would raise a number, so its source is hashed.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from methods.base import Method

OWN_PACKAGES = ("methods", "orchestrator", "streams")
# folders of what is installed: one package there has nothing to do with the next
LIBRARY_FOLDERS = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class Source:
    """The source of a part: a hash over all of its modules, and those of them of which none was found."""

    digest: str
    modules: tuple[str, ...]
    missing: tuple[str, ...]


def code_fields(method_type: type[Method]) -> dict[str, Any]:
    """What of a part's code goes into its cache fields; nothing while a part of ours is at its first version."""
    # names with a space: no setting of a part can have them
    fields: dict[str, Any] = {}
    if method_type.card.version > 1:
        fields["card version"] = method_type.card.version
    if not is_ours(method_type):
        fields["source hash"] = source_of(method_type).digest
    return fields


def described_code(method_type: type[Method]) -> str:
    """A part's code in a few words, which differ where its cache fields do."""
    version = f"version {method_type.card.version}"
    if is_ours(method_type):
        return version
    return f"{version}, source {source_of(method_type).digest[:12]}"


def is_ours(method_type: type[Method]) -> bool:
    """Whether a part is one of this project's own."""
    return _top(method_type.__module__) in OWN_PACKAGES


def source_of(method_type: type[Method]) -> Source:
    """The source of a user's part.

    Its own module and those of the methods that it derives from; and what these import of the same package, or from the
    folder in which the package or file lies. Comments, docstrings and layout do not count. Libraries do not either, and of
    what it derives from ours only the version does.
    """
    # a class can be hashed, but mypy looks at how its instances are
    key: Any = method_type
    return _source_of(key)


# once a process: what runs is what was imported, whatever becomes of the file meanwhile
@functools.cache
def _source_of(method_type: type[Method]) -> Source:
    texts: dict[str, str | None] = {}
    own_versions = []
    for base in method_type.__mro__:
        if not issubclass(base, Method):
            continue
        if is_ours(base):
            own_versions.append([base.__name__, base.card.version])
        else:
            _add_sources(base.__module__, texts)
    content = json.dumps([sorted(texts.items()), own_versions])
    digest = hashlib.sha256(content.encode()).hexdigest()[:32]
    missing = [name for name, text in texts.items() if text is None]
    return Source(digest, tuple(sorted(texts)), tuple(sorted(missing)))


def _add_sources(module_name: str, texts: dict[str, str | None]) -> None:
    """Add the plain source of a module and of all that it imports of the user's own; None where there is none."""
    top = _top(module_name)
    folder = _folder(top)

    def is_users(name: str) -> bool:
        # a file that lies beside another is its author's too, unless both are libraries
        is_beside = folder is not None and _folder(_top(name)) == folder
        return _top(name) == top or (is_beside and _top(name) not in OWN_PACKAGES)

    waiting = [module_name]
    while waiting:
        name = waiting.pop()
        if name in texts:
            continue
        spec = _spec(name)
        source = _read(spec, name)
        if spec is None or source is None:
            texts[name] = None
            continue
        tree = _parse(source)
        waiting += _imported_modules(tree, spec, is_users)
        texts[name] = ast.unparse(_WithoutDocstrings().visit(tree))


def _parse(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError:
        # nobody has imported it yet, or there would be no class to ask about: the text stands for itself
        return ast.Module([ast.Assert(ast.Constant(source))], [])


class _WithoutDocstrings(ast.NodeTransformer):
    """Leaves out strings that stand alone: they say something to readers, and nothing to Python."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return node


def _imported_modules(tree: ast.Module, spec: ModuleSpec, is_users: Callable[[str], bool]) -> list[str]:
    """The full names of the user's modules that a module imports anywhere in it."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if is_users(alias.name):
                    found.append(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                module = importlib.util.resolve_name("." * node.level + module, _package(spec))
            # before its submodules are looked for, which would import a library that nobody has needed yet
            if is_users(module):
                for alias in node.names:
                    # `from a import b` needs `a.b` if that is a module, and else what `a` itself defines
                    submodule = f"{module}.{alias.name}"
                    found.append(submodule if _spec(submodule) else module)
    return found


def _package(spec: ModuleSpec) -> str:
    """The package that a module's relative imports begin at: itself where it is one."""
    if spec.submodule_search_locations is not None:
        return spec.name
    return spec.parent or ""


def _top(module_name: str) -> str:
    return module_name.partition(".")[0]


def _folder(top: str) -> Path | None:
    """The folder in which a package or a single file lies; None for libraries and for what lies in none."""
    spec = _spec(top)
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or [])
    if not places and spec.has_location and spec.origin:
        places = [spec.origin]
    if not places:
        return None
    folder = Path(places[0]).resolve().parent
    if folder.name in LIBRARY_FOLDERS:
        return None
    return folder


def _spec(module_name: str) -> ModuleSpec | None:
    """Where a module comes from; None where there is no such module."""
    try:
        return importlib.util.find_spec(module_name)
    # looking for a submodule imports its package, which is the user's and may do anything
    except Exception:
        return None


def _read(spec: ModuleSpec | None, name: str) -> str | None:
    """The source of a module; None where it has none, as a compiled extension."""
    get_source = getattr(spec and spec.loader, "get_source", None)
    if get_source is None:
        return None
    try:
        source: str | None = get_source(name)
    except (ImportError, OSError, SyntaxError, UnicodeDecodeError):
        return None
    return source
