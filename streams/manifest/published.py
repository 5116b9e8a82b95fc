"""Whether the files of a task are the published ones: compared by their rows, whatever order and form they are written in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from streams.splits import RawSplit

# From the best to the worst: what a task is called is the worst of its files. `differs`: the published rows are known, and
# these are others; `unknown`: there is nothing to compare with.
Verdict = Literal["published", "unknown", "re-split", "other sample", "differs"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
UNKNOWN = "unknown"


@dataclass(frozen=True)
class FileCheck:
    """What a file is: its size in bytes, its SHA-256, and how it compares with the published one."""

    file: str
    size: int
    sha256: str
    verdict: Verdict
    why: str = ""


CheckFiles = Callable[[Sequence[RawSplit]], list[FileCheck]]


@cache
def benchmark() -> dict[str, Any]:
    """The manifest of the public 15-task benchmark: its tasks by their names without case and punctuation."""
    file = Path(__file__).with_name("cl_benchmark.json")
    tasks: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["tasks"]
    return tasks


def published_sizes(name: str) -> tuple[int | None, int | None]:
    """(train, test) rows of the published files of a benchmark's task, where they are known."""
    sizes = []
    for split in ("train", "test"):
        rows = benchmark()[name][split]["rows"]
        sizes.append(None if rows == UNKNOWN else rows)
    return sizes[0], sizes[1]


def file_checker(path: Path, name: str) -> CheckFiles | None:
    """Compares the files in a task's folder with the published ones of that name; None where no such task was published."""
    entry = benchmark().get(name)
    # a folder of one's own may have a task of that name in a category of its own
    if entry is None or entry["category"].lower() != path.parent.name.lower():
        return None

    def check(splits: Sequence[RawSplit]) -> list[FileCheck]:
        checks = [_check_labels(path / "labels.json", entry["labels"])]
        for split in splits:
            checks.append(_check_split(path / f"{split}.json", entry[split]))
        if "test" in splits and (path / "dev.json").exists():
            checks.append(_check_dev(path))
        return checks

    return check


def verdict_of(checks: Sequence[FileCheck]) -> Verdict:
    """What a task is called by its files: the worst of them, where one that is no split and cannot be compared does not count."""
    worst: Verdict = "published"
    for check in checks:
        if check.file in ("labels.json", "dev.json") and check.verdict == UNKNOWN:
            continue
        worst = max(worst, check.verdict, key=VERDICTS.index)
    return worst


def rows_sha256(rows: Sequence[dict[str, str]]) -> str:
    """The SHA-256 of rows as a set: the order in which a file has them changes nothing that is trained."""
    texts = []
    for row in rows:
        texts.append([row["sentence"], row["label"]])
    return hashlib.sha256(json.dumps(sorted(texts)).encode()).hexdigest()


def _check_split(file: Path, published: dict[str, Any]) -> FileCheck:
    content = file.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    copies = published.get("copies", [])
    note = published.get("note", "")
    # by the file's own hash where it is known: to sort the rows of large files takes seconds
    for copy in copies:
        if sha256 == copy["file_sha256"]:
            return FileCheck(file.name, len(content), sha256, copy["verdict"], copy["why"] or note)
    rows = rows_sha256(json.loads(content))
    if rows == published["rows_sha256"]:
        return FileCheck(file.name, len(content), sha256, "published", note)
    for copy in copies:
        if rows == copy["rows_sha256"]:
            return FileCheck(file.name, len(content), sha256, copy["verdict"], copy["why"])
    if published["rows_sha256"] == UNKNOWN:
        return FileCheck(file.name, len(content), sha256, "unknown", "the published rows are not known")
    why = f"the published file has {published['rows']} rows, and not all of them are these"
    return FileCheck(file.name, len(content), sha256, "differs", why)


def _check_labels(file: Path, published: list[str] | str) -> FileCheck:
    content = file.read_bytes()
    verdict: Verdict = "unknown"
    if published != UNKNOWN:
        verdict = "differs"
        # in their order too, in which prompts list them
        if json.loads(content) == published:
            verdict = "published"
    return FileCheck(file.name, len(content), hashlib.sha256(content).hexdigest(), verdict)


def _check_dev(path: Path) -> FileCheck:
    """A dev file, which no task reads: said of it is whether it is the test file."""
    content = (path / "dev.json").read_bytes()
    why = "not read"
    if content == (path / "test.json").read_bytes():
        why = "not read; it is test.json, byte for byte"
    return FileCheck("dev.json", len(content), hashlib.sha256(content).hexdigest(), "unknown", why)
