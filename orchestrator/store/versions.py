"""The versions of the libraries that a state was trained with, and what is said where it is reused with others."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from collections import defaultdict
from collections.abc import Iterable, Mapping

PACKAGES = (
    "continual-orchestrator",
    "torch",
    "transformers",
    "peft",
    "ray",
    "mlflow",
    "datasets",
    "tokenizers",
    "numpy",
)
# what can make the same steps give other weights
NUMERICAL = ("continual-orchestrator", "python", "torch", "transformers", "peft", "tokenizers", "numpy")


# once a process, which goes on with what it has imported: looking for packages takes a while
@functools.cache
def library_versions() -> Mapping[str, str]:
    """The versions of Python and of the packages that are installed."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def release(version: str) -> str:
    """The first two numbers of a version, such as 2.12 of 2.12.1+cpu: libraries change results from one to the next."""
    return ".".join(version.partition("+")[0].split(".")[:2])


def reuse_line(makers: Iterable[Mapping[str, str]], present: Mapping[str, str]) -> str | None:
    """One line on checkpoints that other releases of libraries made than the present ones; None where there are none."""
    others: dict[str, set[str]] = defaultdict(set)
    for versions in makers:
        for name in NUMERICAL:
            # what is not recorded, as with checkpoints of long ago, is not known to differ
            if name not in versions or name not in present:
                continue
            if release(versions[name]) != release(present[name]):
                others[name].add(release(versions[name]))
    if not others:
        return None
    made_with = []
    now = []
    for name, releases in others.items():
        made_with.append(f"{name} {', '.join(sorted(releases))}")
        now.append(release(present[name]))
    return f"checkpoints of {' and '.join(made_with)} are reused with {' and '.join(now)}"
